//! Landlock (landlock(7)), where the kernel has it, as a second line of defence behind capabilities, mounts and
//! seccomp: a sandboxed process cannot create device nodes, change mounts, or inspect processes outside of its own
//! domain, such as those of an `exec`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
};

use crate::{
    channel::{Failure, Step},
    sys,
};

/// First ABI version that can allow renames between directories; older ones forbid them.
const OLDEST: i64 = 2;

/// LANDLOCK_ACCESS_FS_MAKE_CHAR and _MAKE_BLOCK, allowed nowhere.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;

/// LANDLOCK_ACCESS_FS_REFER, denied unless allowed.
const REFER: u64 = 1 << 13;

/// Confines this process and its descendants. Requires no_new_privs.
pub(crate) fn confine() -> Result<(), Failure> {
    if is_active() {
        return restrict().step("landlock");
    }
    Ok(())
}

/// Whether the kernel supports Landlock in a usable version.
pub(crate) fn is_active() -> bool {
    sys::landlock_version().is_some_and(|version| version >= OLDEST)
}

/// Every access that this process may need beneath its private root: everything but execution.
/// LANDLOCK_ACCESS_FS_WRITE_FILE to _REFER, and _TRUNCATE (1 << 14) and _IOCTL_DEV (1 << 15) where they are known.
const EXECUTE: u64 = 1;
const UP_TO_REFER: u64 = (1 << 14) - 1;
const TRUNCATE: (i64, u64) = (3, 1 << 14);
const IOCTL_DEVICE: (i64, u64) = (5, 1 << 15);

/// Confines this process to the files beneath its root, which it may change but neither execute nor control as
/// devices. Requires no_new_privs. Returns whether the kernel supports it.
pub(crate) fn confine_to_root() -> io::Result<bool> {
    let Some(version) = sys::landlock_version().filter(|version| *version >= OLDEST) else {
        return Ok(false);
    };
    let known = |(since, access): (i64, u64)| if version >= since { access } else { 0 };
    let handled = UP_TO_REFER | known(TRUNCATE) | known(IOCTL_DEVICE);
    let ruleset = sys::landlock_ruleset(handled)?;
    let allowed = handled & !EXECUTE & !IOCTL_DEVICE.1;
    sys::landlock_allow(&ruleset, &open_root()?, allowed)?;
    sys::landlock_restrict(&ruleset)?;
    Ok(true)
}

fn restrict() -> io::Result<()> {
    let ruleset = sys::landlock_ruleset(MAKE_DEVICES | REFER)?;
    sys::landlock_allow(&ruleset, &open_root()?, REFER)?;
    sys::landlock_restrict(&ruleset)
}

fn open_root() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/")
}
