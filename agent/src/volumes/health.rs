//! Whether a mounted file system takes no more writes, or had errors.

use std::{fs, io, path::Path};

use rustix::fs::StatVfsMountFlags;

use super::device::{Device, attribute};

/// The mount's options of the superblock by which ext4 says that it takes no more writes. Recent kernels do not make it read-only.
const STOPPED: [&str; 3] = ["ro", "emergency_ro", "shutdown"];

/// The mounts of this thread, which may have a mount namespace of its own, as the kernel lists them.
#[derive(Debug)]
pub(super) struct Mounts(String);

impl Mounts {
    /// Reads the present ones.
    pub(super) fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/thread-self/mountinfo").map(Self)
    }

    /// Whether one of the mounts of a device has an option of [`STOPPED`].
    fn is_stopped(&self, device: &Device) -> bool {
        let of_device = self
            .0
            .lines()
            .filter(|line| line.split(' ').nth(2) == Some(device.0.as_str()));
        let mut options = of_device.filter_map(|line| {
            let (_, of_superblock) = line.split_once(" - ")?;
            of_superblock.split(' ').nth(2)
        });
        options.any(|options| options.split(',').any(|it| STOPPED.contains(&it)))
    }
}

/// Whether the file system of a directory takes no writes.
pub(super) fn is_read_only(directory: &Path, mounts: Option<&Mounts>) -> io::Result<bool> {
    let found = rustix::fs::statvfs(directory)?;
    let device = Device::mounted_on(directory)?;
    let is_stopped = mounts.is_some_and(|mounts| mounts.is_stopped(&device));
    Ok(is_stopped || found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether a mounted ext4 is read-only, was stopped by the kernel, or had errors since its last check.
pub(super) fn is_damaged(mount_point: &Path, mounts: &Mounts) -> io::Result<bool> {
    let device = Device::mounted_on(mount_point)?;
    Ok(is_read_only(mount_point, Some(mounts))? || had_errors(&device))
}

/// Whether the kernel counts errors; none where it does not say.
fn had_errors(device: &Device) -> bool {
    let name = device.name().unwrap_or_default();
    let count = fs::read_to_string(attribute(&name, "errors_count"));
    count.is_ok_and(|count| !matches!(count.trim(), "" | "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_superblock_tell_that_it_is_stopped() {
        let is_stopped = |mounts: &str, device: &str| {
            Mounts(mounts.to_owned()).is_stopped(&Device(device.to_owned()))
        };
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
