//! Projects: directories whose files the file system counts together, and may limit (project quotas of ext4 and XFS).

use std::{io, os::fd::AsFd};

use crate::sys;

/// New files below a directory belong to its project (`FS_XFLAG_PROJINHERIT`).
const INHERITS: u32 = 0x200;
/// The limits of projects are enforced (`FS_QUOTA_PDQ_ENFD`).
const ENFORCED: u16 = 1 << 5;
/// The limits of a quota are set (`QIF_BLIMITS | QIF_ILIMITS`).
const LIMITS: u32 = 1 | 4;
/// The unit of a quota's limit (`QIF_DQBLKSIZE`).
const BLOCK_BYTES: u64 = 1 << 10;

/// The project of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Project {
    /// Its number; 0 is that of all files that nobody gave another one.
    pub id: u32,
    /// Whether new files below the directory belong to it too.
    pub is_inherited: bool,
}

/// What a project may hold. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// The quota of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// What it may hold.
    pub limits: Limits,
    /// The bytes that its files take.
    pub used_bytes: u64,
    /// The number of its files and directories.
    pub used_inodes: u64,
}

/// The project of a directory that is open for reading.
///
/// # Errors
/// Its file system knows no projects.
pub fn of(directory: impl AsFd) -> io::Result<Project> {
    let attributes = sys::file_attributes(directory)?;
    Ok(Project {
        id: attributes.project,
        is_inherited: attributes.flags & INHERITS != 0,
    })
}

/// Gives a directory, and all that is created below it from now on, a project.
///
/// # Errors
/// Its file system knows no projects, or this process is in a user namespace.
pub fn set(directory: impl AsFd, id: u32) -> io::Result<()> {
    let mut attributes = sys::file_attributes(&directory)?;
    attributes.flags |= INHERITS;
    attributes.project = id;
    Ok(sys::set_file_attributes(directory, attributes)?)
}

/// Whether the file system of a file enforces the limits of projects now.
///
/// # Errors
/// It has no quotas, or the kernel is older than Linux 5.14.
pub fn are_limited(file: impl AsFd) -> io::Result<bool> {
    Ok(sys::quota_flags(file)? & ENFORCED != 0)
}

/// The quota of a project on the file system of a file. One that was never set is empty.
///
/// # Errors
/// The file system does not count projects, or this process may not ask.
pub fn quota(file: impl AsFd, id: u32) -> io::Result<Quota> {
    let quota = match sys::project_quota(file, id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Quota::default()),
        quota => quota?,
    };
    Ok(Quota {
        limits: Limits {
            bytes: quota.hard_limit_blocks.saturating_mul(BLOCK_BYTES),
            inodes: quota.hard_limit_inodes,
        },
        used_bytes: quota.used_bytes,
        used_inodes: quota.used_inodes,
    })
}

/// Limits a project on the file system of a file.
///
/// # Errors
/// The file system does not count projects, or this process may not.
pub fn limit(file: impl AsFd, id: u32, limits: Limits) -> io::Result<()> {
    let quota = sys::ProjectQuota {
        hard_limit_blocks: limits.bytes.div_ceil(BLOCK_BYTES),
        hard_limit_inodes: limits.inodes,
        valid: LIMITS,
        ..sys::ProjectQuota::default()
    };
    sys::set_project_quota(file, id, quota)
}
