//! The tables `[backups]`, `[images]`, `[logs]` and `[volumes]` of `agent.toml`.

use std::path::PathBuf;

use serde::Deserialize;
use tucano_api::{
    settings::{Problem, Validate},
    units::{Bytes, Span},
};

/// Storage of images.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Format of unpacked layers.
    pub unpack: Unpack,
    /// Validity of an integrity check of an unpacked layer. A start after it expired, or the first one of this agent, reads
    /// and checks the whole layer.
    pub check_again: Span,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            unpack: Unpack::Auto,
            check_again: Span::secs(24 * 3600),
        }
    }
}

/// Format of unpacked layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// EROFS images if the kernel mounts them, else directories.
    Auto,
    /// Directories of files.
    Directories,
    /// EROFS images; the agent does not start if the kernel does not mount them.
    Erofs,
}

/// The volumes of services.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeSettings {
    /// The directory that holds them; `volumes` in `data_dir` if absent.
    pub path: Option<PathBuf>,
    /// What volumes leave free where `data_dir` is on the same file system; if absent, the smaller of 5 % of it and 1 GiB.
    pub reserve: Option<Bytes>,
}

/// Backups of volumes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSettings {
    /// Path of the program that stores and restores; by default `tucano_backup` beside `tucano_agentd`, else in
    /// `/usr/lib/tucano`.
    pub program: Option<PathBuf>,
    /// Concurrent backups. Others wait.
    pub concurrency: usize,
    /// Time limit of a backup, and of what is loaded into a new volume, once it has begun.
    pub timeout: Span,
    /// How long a backup by `dump` waits for its process to be healthy.
    pub process_wait: Span,
    /// Memory limit of the program.
    pub memory: Bytes,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            program: None,
            concurrency: 1,
            timeout: Span::secs(24 * 3600),
            process_wait: Span::secs(60),
            memory: Bytes::mib(512),
        }
    }
}

impl Validate for BackupSettings {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |is_valid: bool, key: &str, advice: &str| {
            if !is_valid {
                problems.push(Problem::new(format!("backups.{key}"), advice));
            }
        };
        let concurrency = (1..=16).contains(&self.concurrency);
        check(concurrency, "concurrency", "write a number from 1 to 16");
        let timeout = (Span::secs(1)..=Span::secs(30 * 24 * 3600)).contains(&self.timeout);
        check(timeout, "timeout", "write a duration from 1s to 30d");
        let wait = self.process_wait <= Span::secs(3600);
        check(wait, "process_wait", "write a duration up to 1h");
        let memory = (Bytes::mib(64)..=Bytes::mib(64 << 10)).contains(&self.memory);
        check(memory, "memory", "write a size from 64MiB to 64GiB");
        problems
    }
}

/// Retention of each of a process's two output streams.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Size at which a file is rotated.
    pub file_bytes: Bytes,
    /// Number of files of each stream, including the current one.
    pub files: u32,
    /// How long output is kept after its process's removal.
    pub kept: Span,
    /// Size of the kept output of all removed processes; beyond it, the oldest is removed.
    pub kept_bytes: Bytes,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            file_bytes: Bytes::mib(10),
            files: 3,
            kept: Span::secs(3600),
            kept_bytes: Bytes::mib(256),
        }
    }
}
