//! Mounts EROFS images: directly from their files if the kernel can (Linux 6.12), otherwise by loop devices, which
//! mount(8) creates and which vanish with the mount.

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
/// Containers use copies of this mount in their overlays; no program is run from this one.
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NODEV)
    .union(MountFlags::NOSUID);

/// How images are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountMethod {
    /// From the file, or by a loop device if the kernel requires one.
    Auto,
    /// By a loop device.
    LoopDevice,
}

/// Mounts an image on a directory.
pub(crate) fn mount(image: &Path, on: &Path, method: MountMethod) -> io::Result<()> {
    let mounted = match method {
        MountMethod::Auto => rustix::mount::mount(image, on, KIND, FLAGS, None),
        MountMethod::LoopDevice => Err(Errno::NOTBLK),
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
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(message))
}

/// Unmounts the directory if something is mounted. Overlays on top of the mount, such as a running container's, stay.
pub(crate) fn unmount(on: &Path) -> io::Result<()> {
    // Two programs may have mounted it concurrently.
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

/// Unmounts and removes the directory.
pub(crate) fn remove(on: &Path) -> io::Result<()> {
    unmount(on)?;
    match fs::remove_dir(on) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
