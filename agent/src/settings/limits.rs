//! The table `[limits]` of `agent.toml`.

use serde::Deserialize;
use tucano_api::{
    settings::{Problem, Validate},
    units::{Bytes, Span},
};

/// Limits on what the agent does and accepts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest number of processes in a desired set.
    pub processes: usize,
    /// Largest request body.
    pub body_bytes: Bytes,
    /// Concurrent container starts.
    pub starts: usize,
    /// Network namespaces, each with address and link, that are prepared for the next starts while the node has processes.
    pub ready_networks: usize,
    /// Container supervisors that are prepared for the next starts while the node has processes.
    pub ready_supervisors: usize,
    /// Concurrent fetches of layers, which are unpacked as they arrive.
    pub layer_pulls: usize,
    /// Minimum size of the kernel's connection tracking table (`nf_conntrack_max`).
    pub tracked_connections: u64,
    /// Prefetched layers that are queued or in progress.
    pub prefetches: usize,
    /// Time without progress after which a transfer is aborted.
    pub stalled_transfer: Span,
    /// Minimum time between two measurements of a process's disk usage.
    pub disk_interval: Span,
    /// Concurrent clients that follow logs.
    pub followers: usize,
    /// Concurrent commands in containers (`exec`).
    pub sessions: usize,
    /// Largest number of past lines in one response.
    pub log_lines: usize,
    /// Largest size of past output in one response.
    pub log_bytes: Bytes,
    /// Volumes that are copied from other workers at the same time, and those that other workers read at the same time.
    pub volume_copies: usize,
    /// Largest number of files and directories in a volume that is copied.
    pub volume_entries: usize,
    /// Most names of devices that are described on the node.
    pub devices: usize,
    /// Largest file that describes devices.
    pub cdi_file: Bytes,
    /// Largest unpacked layer.
    pub layer_bytes: Bytes,
    /// Concurrent connections of clients other than the controller; beyond, the oldest is closed.
    pub connections: usize,
    /// Concurrent TLS handshakes, each lasting until the first request.
    pub handshakes: usize,
    /// Time limit of a handshake.
    pub handshake_timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 1000,
            body_bytes: Bytes::mib(16),
            starts: 8,
            ready_networks: 8,
            ready_supervisors: 8,
            layer_pulls: 3,
            tracked_connections: 131_072,
            prefetches: 32,
            stalled_transfer: Span::secs(30),
            disk_interval: Span::secs(1),
            followers: 64,
            sessions: 32,
            log_lines: 10_000,
            log_bytes: Bytes::mib(4),
            volume_copies: 2,
            volume_entries: 2_000_000,
            devices: 1024,
            cdi_file: Bytes::mib(1),
            layer_bytes: Bytes(32 << 30),
            connections: 256,
            handshakes: 64,
            handshake_timeout: Span::secs(10),
        }
    }
}

/// Each prepared network or supervisor takes memory of its own or of the kernel.
const MAX_READY: usize = 256;

impl Validate for Limits {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value, max) in [
            ("processes", self.processes, 4000),
            ("starts", self.starts, 1024),
            ("layer_pulls", self.layer_pulls, 64),
            ("prefetches", self.prefetches, 1024),
            ("followers", self.followers, 4096),
            ("sessions", self.sessions, 1024),
            ("log_lines", self.log_lines, 1_000_000),
            ("volume_copies", self.volume_copies, 16),
            ("volume_entries", self.volume_entries, 4_000_000),
            ("devices", self.devices, 16_384),
            ("connections", self.connections, 10_000),
            ("handshakes", self.handshakes, 10_000),
        ] {
            if !(1..=max).contains(&value) {
                problems.push(Problem::new(
                    format!("limits.{key}"),
                    format!("write a number from 1 to {max}"),
                ));
            }
        }
        if self.tracked_connections > 1 << 24 {
            problems.push(Problem::new(
                "limits.tracked_connections",
                "write a number up to 16777216, or 0 to leave it as the system has it",
            ));
        }
        for (key, value) in [
            ("ready_networks", self.ready_networks),
            ("ready_supervisors", self.ready_supervisors),
        ] {
            if value > MAX_READY {
                problems.push(Problem::new(
                    format!("limits.{key}"),
                    format!("write a number from 0 to {MAX_READY}"),
                ));
            }
        }
        if !(Span::millis(10)..=Span::secs(3600)).contains(&self.disk_interval) {
            problems.push(Problem::new(
                "limits.disk_interval",
                "write a duration from 10ms to 1h",
            ));
        }
        if !(Span::millis(100)..=Span::secs(600)).contains(&self.handshake_timeout) {
            problems.push(Problem::new(
                "limits.handshake_timeout",
                "write a duration from 100ms to 10m",
            ));
        }
        if !(Bytes(4096)..=Bytes::mib(256)).contains(&self.body_bytes) {
            problems.push(Problem::new(
                "limits.body_bytes",
                "write a size from 4KiB to 256MiB",
            ));
        }
        problems
    }
}
