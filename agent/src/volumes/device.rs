//! The block device of a mounted file system.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

/// A block device, by its number `<major>:<minor>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device(pub(super) String);

impl Device {
    /// The device that is mounted on a directory.
    pub(super) fn mounted_on(directory: &Path) -> io::Result<Self> {
        let number = fs::metadata(directory)?.dev();
        Ok(Self(format!("{}:{}", major(number), minor(number))))
    }

    /// The kernel's link to what it has about the device.
    pub(super) fn link(&self) -> PathBuf {
        Path::new("/sys/dev/block").join(&self.0)
    }

    /// Its name, such as `loop3`.
    pub(super) fn name(&self) -> io::Result<OsString> {
        let target = fs::read_link(self.link())?;
        Ok(target.file_name().unwrap_or_default().to_owned())
    }
}

/// A file of the kernel about the ext4 on the device of this name.
pub(super) fn attribute(device: &OsStr, name: &str) -> PathBuf {
    Path::new("/sys/fs/ext4").join(device).join(name)
}
