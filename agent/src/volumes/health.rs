//! Whether a mounted file system takes no more writes, or had errors.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, major, minor};

/// The mount's options of the superblock by which ext4 says that it takes no more writes. Recent kernels do not make it read-only.
const STOPPED: [&str; 3] = ["ro", "emergency_ro", "shutdown"];

/// Whether a mounted ext4 is read-only, was stopped by the kernel, or had errors since its last check.
pub(super) fn is_damaged(mount_point: &Path) -> io::Result<bool> {
    let is_read_only = || -> io::Result<bool> {
        let found = rustix::fs::statvfs(mount_point)?;
        Ok(found.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    let device = fs::metadata(mount_point)?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    // Mounts of the thread: it may have a mount namespace of its own.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(is_read_only()? || is_stopped(&mounts, &device) || had_errors(&device))
}

/// Whether one of the mounts of a device has an option of [`STOPPED`].
fn is_stopped(mounts: &str, device: &str) -> bool {
    let of_device = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(device));
    let mut options = of_device.filter_map(|line| {
        let (_, of_superblock) = line.split_once(" - ")?;
        of_superblock.split(' ').nth(2)
    });
    options.any(|options| options.split(',').any(|it| STOPPED.contains(&it)))
}

/// Whether the kernel counts errors; none where it does not say.
fn had_errors(device: &str) -> bool {
    let link = fs::read_link(format!("/sys/dev/block/{device}")).unwrap_or_default();
    let count = fs::read_to_string(attribute(&link, "errors_count"));
    count.is_ok_and(|count| !matches!(count.trim(), "" | "0"))
}

/// A file of the kernel's about the ext4 on a device.
pub(super) fn attribute(device: &Path, name: &str) -> PathBuf {
    let device = device.file_name().unwrap_or_default();
    Path::new("/sys/fs/ext4").join(device).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_superblock_tell_that_it_is_stopped() {
        let mounts = |options: &str| {
            format!(
                "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                 67 44 7:0 / /place/db.data.1/mount rw,relatime shared:9 - ext4 /dev/loop0 {options}\n"
            )
        };
        for (options, expected) in [
            ("rw,noinit_itable", false),
            ("rw,errors=remount-ro", false),
            ("rw,noinit_itable,emergency_ro", true),
            ("rw,shutdown", true),
            ("ro", true),
        ] {
            assert_eq!(is_stopped(&mounts(options), "7:0"), expected, "{options}");
            assert!(!is_stopped(&mounts(options), "8:1"), "{options}");
        }
        assert!(!is_stopped("", "7:0") && !is_stopped("x - y", "7:0"));
    }
}
