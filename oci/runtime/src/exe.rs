//! Keeps containers from writing to this program's file through `/proc/<pid>/exe` (the trick of CVE-2019-5736: have the
//! runtime execute itself inside, and overwrite it when it has ended).
//!
//! The program runs from a read-only copy of its mount that is part of no namespace: no container can reach the mount to
//! make it writable, and no copy of the file has to be kept in memory.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt};

use rustix::{
    fs::{CWD, StatVfsMountFlags, statvfs},
    mount::OpenTreeFlags,
};

use crate::sys::{self, MountAttributes};

/// Why the program cannot be executed from a read-only mount.
#[derive(Debug, thiserror::Error)]
#[error("cannot protect this program from its containers (Linux 5.12 and root are needed): {0}")]
pub(crate) struct Error(#[from] io::Error);

/// Executes this program again from a read-only mount, unless that is where it runs from.
pub(crate) fn protect() -> Result<(), Error> {
    const PROGRAM: &str = "/proc/self/exe";
    let flags = statvfs(PROGRAM).map_err(io::Error::from)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = rustix::mount::open_tree(CWD, PROGRAM, copy).map_err(io::Error::from)?;
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Default::default()
    };
    sys::set_mount_attributes(&program, &change)?;
    let text = |text: &std::ffi::OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let arguments: Vec<_> = std::env::args_os()
        .map(|argument| text(&argument))
        .collect::<Result<_, _>>()?;
    let environment: Vec<_> = std::env::vars_os()
        .map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            text(&entry)
        })
        .collect::<Result<_, _>>()?;
    match nix::unistd::fexecve(&program, &arguments, &environment) {
        Ok(never) => match never {},
        Err(error) => Err(io::Error::from(error).into()),
    }
}
