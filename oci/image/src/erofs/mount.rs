//! Mounts images: by their files where the kernel can (Linux 6.12), else by loop devices, which mount(8) makes and which
//! go with the mount.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};

const KIND: &str = "erofs";
/// What containers get to see of it are copies of the mount that overlays are made of; nobody runs or opens anything here.
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NODEV)
    .union(MountFlags::NOSUID);

/// How an image is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its file, or by a loop device if the kernel wants one.
    Either,
    /// By a loop device.
    Loop,
}

/// Mounts an image on a directory.
pub(crate) fn mount(image: &Path, on: &Path, way: Way) -> io::Result<()> {
    let mounted = match way {
        Way::Either => rustix::mount::mount(image, on, KIND, FLAGS, None),
        Way::Loop => Err(Errno::NOTBLK),
    };
    match mounted {
        Err(Errno::NOTBLK) => mount_by_loop(image, on),
        mounted => Ok(mounted?),
    }
}

fn mount_by_loop(image: &Path, on: &Path) -> io::Result<()> {
    let output = Command::new("mount")
        .args(["-t", KIND, "-o", "loop,ro,nodev,nosuid"])
        .arg(image)
        .arg(on)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let talk = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(talk))
}

/// Takes the mount away, if there is one. What was made of it, such as a running container's overlay, goes on.
pub(crate) fn unmount(on: &Path) -> io::Result<()> {
    // Two programs may have mounted it at the same time.
    while is_mounted(on)? {
        rustix::mount::unmount(on, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// Whether something is mounted on this directory.
pub(crate) fn is_mounted(on: &Path) -> io::Result<bool> {
    let stat = match statx(CWD, on, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Err(Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Removes the mount's directory, and what is mounted there.
pub(crate) fn remove(on: &Path) -> io::Result<()> {
    unmount(on)?;
    match fs::remove_dir(on) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
