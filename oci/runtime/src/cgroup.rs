//! cgroups on v2, v1 and hybrid hosts: one small module around cgroups-rs and the files it does not read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a cgroup could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// One container's cgroup, in every hierarchy that has one; its paths are absolute, so it can be found again by another caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// `(controller, directory)` on v1; one entry `("", directory)` on v2.
    pub directories: Vec<(String, PathBuf)>,
}

/// What a cgroup counts; a number that the kernel does not tell is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used, in microseconds.
    pub cpu_usage_us: u64,
    /// Scheduling periods in which it was throttled.
    pub throttled_periods: u64,
    /// Time for which it was throttled, in microseconds.
    pub throttled_us: u64,
    /// Memory in use, in bytes.
    pub memory_current: u64,
    /// Most memory ever in use, in bytes.
    pub memory_peak: u64,
    /// Memory limit, in bytes.
    pub memory_limit: u64,
    /// How often the kernel killed in it for lack of memory.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids_current: u64,
    /// Most processes and threads that may exist.
    pub pids_limit: u64,
    /// How often a fork was refused because of that limit.
    pub pids_refused: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
}

impl Cgroup {
    /// The cgroup of the container with this home directory, as its supervisor noted it.
    pub fn of(home: &std::path::Path) -> Result<Option<Self>, Error> {
        let _ = home;
        unimplemented!()
    }

    /// What it counts now.
    pub fn stats(&self) -> Result<Stats, Error> {
        unimplemented!()
    }

    /// Kills every process in it (and below) with SIGKILL and removes it, waiting for the processes to be gone; absent is fine.
    pub fn destroy(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

/// Removes the directory `path`, relative to this process's own cgroup, in each hierarchy, if it is empty.
pub fn remove_parent(path: &str) -> Result<(), Error> {
    let _ = path;
    unimplemented!()
}
