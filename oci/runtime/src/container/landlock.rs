//! Landlock (landlock(7)), where the kernel has it: a second lock on what capabilities, mounts and the filter keep out already.
//! Whatever becomes of those, a process of a sandbox makes no device node, changes no mount, and looks into no process that is
//! not of its own start: not into one that an `exec` brings in, either.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
};

use crate::{
    channel::{Failure, Step},
    sys,
};

/// Renaming between directories can be allowed since this version of the interface, and is denied by older ones.
const OLDEST: i64 = 2;

/// LANDLOCK_ACCESS_FS_MAKE_CHAR and _MAKE_BLOCK, which are allowed nowhere.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;

/// LANDLOCK_ACCESS_FS_REFER, which is denied unless it is allowed.
const REFER: u64 = 1 << 13;

/// Confines this process and all that come from it. To be called with no_new_privs set.
pub(crate) fn confine() -> Result<(), Failure> {
    if is_active() {
        return restrict().step("landlock");
    }
    Ok(())
}

/// Whether the kernel has it, in a version that can be used.
pub(crate) fn is_active() -> bool {
    sys::landlock_version().is_some_and(|version| version >= OLDEST)
}

/// All accesses that this process may ever need beneath its root, which is a directory for it alone: everything but
/// executing files. LANDLOCK_ACCESS_FS_WRITE_FILE to _REFER, and _TRUNCATE (1 << 14) and _IOCTL_DEV (1 << 15) where they
/// are known.
const EXECUTE: u64 = 1;
const UP_TO_REFER: u64 = (1 << 14) - 1;
const TRUNCATE: (i64, u64) = (3, 1 << 14);
const IOCTL_DEVICE: (i64, u64) = (5, 1 << 15);

/// Confines this process, with no_new_privs set, to the files beneath its root, which it may change but neither execute nor
/// control as devices; whether the kernel can.
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
