//! OCI runtime: a bundle's configuration becomes a process in namespaces, mounts, cgroups, capabilities, seccomp.
//! Knows nothing of clusters, images or networks. `unsafe` in `sys.rs` only.
//!
//! A container's home directory (`Launch::home`) holds, all written atomically:
//! - `launch.json`: what to start ([`launch::Launch`]),
//! - `supervisor.json`: pid and start time of the supervisor, and of the container's first process,
//! - `exit.json`: how it ended ([`launch::Exit`]),
//! - `stdout.log`, `stderr.log`, and their rotated predecessors `.1`, `.2`…
//! - `upper/`, `work/`: the writable layer.

pub mod cgroup;
pub mod launch;
pub mod supervisor;
