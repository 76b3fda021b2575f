//! Disk usage of unlinked files that a container's processes have open or mapped.
//!
//! The number of descriptors and mappings that one measurement examines is limited. Each process gets an equal share of that, and the
//! next measurement continues where this one ended.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat};
use tucano_oci_runtime::cgroup::Cgroup;

use super::disk_usage;

/// Descriptors and mappings that one measurement examines; examining one takes about 2 µs.
const MAX_EXAMINED: usize = 200_000;
/// Smallest share of a process.
const MIN_SHARE: usize = 64;
/// `f_type` of overlayfs, statfs(2).
const OVERLAYFS: i64 = 0x794c_7630;

/// Disk usage in bytes of the container with this home directory. Nothing is read or written by examining a descriptor.
pub(super) fn bytes(home: &Path, round: usize) -> u64 {
    let processes = match Cgroup::of(home) {
        Ok(Some(cgroup)) => cgroup.processes(),
        _ => return 0,
    };
    // A mapping may refer to the file below the overlay, on the file system of the upper directory.
    let upper = rustix::fs::stat(home.join("upper")).map(|stat| stat.st_dev);
    let share = share(processes.len());
    let mut found = BTreeMap::new();
    for pid in processes {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        for stat in descriptors(&directory, share, round)
            .chain(mappings(&directory, share, round))
            .filter_map(|path| unlinked_file(&path, upper.ok()))
        {
            // The overlay and its upper directory show the same inode number with different device numbers.
            found.insert((stat.st_ino, stat.st_size), disk_usage(&stat));
        }
    }
    found
        .values()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

fn share(processes: usize) -> usize {
    (MAX_EXAMINED / 2 / processes.max(1)).max(MIN_SHARE)
}

/// The descriptors of a process that are examined in this round. Their numbers are tried without listing the directory, which
/// takes time for each descriptor.
fn descriptors(process: &Path, share: usize, round: usize) -> impl Iterator<Item = PathBuf> {
    let size = descriptor_table_size(process).unwrap_or(0);
    let directory = process.join("fd");
    window(size, share, round).map(move |number| directory.join(number.to_string()))
}

/// The numbers that a round examines out of `size`.
fn window(size: usize, share: usize, round: usize) -> impl Iterator<Item = usize> {
    let count = share.min(size);
    let start = (round.wrapping_mul(share)).checked_rem(size).unwrap_or(0);
    (start..start + count).map(move |number| number % size.max(1))
}

/// `FDSize` of proc_pid_status(5).
fn descriptor_table_size(process: &Path) -> Option<usize> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("FDSize:"))?;
    line.trim().parse().ok()
}

/// The file mappings of a process that are examined in this round: all, unless there are more than its share.
fn mappings(process: &Path, share: usize, round: usize) -> impl Iterator<Item = PathBuf> {
    let directory = process.join("map_files");
    let entries = || fs::read_dir(&directory).into_iter().flatten().flatten();
    let count = entries().count();
    let start = match count > share {
        true => round.wrapping_mul(share) % count,
        false => 0,
    };
    let paths: Vec<_> = entries()
        .skip(start)
        .take(share)
        .map(|entry| entry.path())
        .collect();
    paths.into_iter()
}

/// The file behind a descriptor or a mapping, if it is unlinked and in the container's writable layer.
fn unlinked_file(path: &Path, upper: Option<u64>) -> Option<Stat> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || stat.st_nlink > 0 {
        return None;
    }
    let is_overlay = || rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == OVERLAYFS);
    (upper == Some(stat.st_dev) || is_overlay()).then_some(stat)
}

#[cfg(test)]
mod tests;
