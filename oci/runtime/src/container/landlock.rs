//! Landlock (landlock(7)), where the kernel has it: a second lock on what capabilities, mounts and the filter keep out already.
//! Whatever becomes of those, a process of a sandbox makes no device node, changes no mount, and looks into no process that is
//! not of its own start: not into one that an `exec` brings in, either.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt};

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

fn restrict() -> io::Result<()> {
    let ruleset = sys::landlock_ruleset(MAKE_DEVICES | REFER)?;
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/")?;
    sys::landlock_allow(&ruleset, &root, REFER)?;
    sys::landlock_restrict(&ruleset)
}
