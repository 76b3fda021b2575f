//! OCI runtime: a bundle's configuration becomes a process in namespaces, mounts, cgroups, capabilities, seccomp.
//! Knows nothing of clusters, images or networks. `unsafe` in `sys.rs` only.
//!
//! For callers: [`profile`] makes a sandbox's specification, [`supervisor`] starts and finds containers, [`cgroup`] reads and
//! removes what they leave, [`confinement`] keeps a program that reads untrusted files within one directory. For the program `tucano_oci`: [`supervise`], [`exec`], [`session`] and [`probe`]; beneath them `container` (what
//! happens inside), `logs`, `channel` (what the processes of a start tell each other), `exe` and `home`.
//!
//! A container's home directory (`Launch::home`) holds, all written atomically:
//! - `launch.json`: what to start ([`launch::Launch`]),
//! - `lock`: locked as long as there is a supervisor, from before the start is reported,
//! - `supervisor.json`: pid and start time of the supervisor, and of the container's first process; its cgroup and user,
//! - `attach`: the supervisor's socket for [`attached`], as long as the container runs,
//! - `exit.json`: how it ended ([`launch::Exit`]); space for it is set aside as `exit.json.tmp`,
//! - `stdout.log`, `stderr.log`, and their rotated predecessors `.1`, `.2`…
//! - `upper/`, `work/`: the writable layer.

pub mod arguments;
mod attach;
pub mod attached;
mod birth;
pub mod bundle;
pub mod cgroup;
mod channel;
pub mod confinement;
mod container;
mod exe;
pub mod exec;
pub mod features;
mod home;
mod hooks;
pub mod launch;
pub mod lifecycle;
mod listener;
mod logs;
mod notification;
pub mod probe;
pub mod profile;
pub mod session;
pub mod supervise;
pub mod supervisor;
mod sys;
mod systemd;
mod title;

/// Forbids this process to write to its program's tables of addresses. To be called first of all.
pub fn seal_program() {
    if cfg!(target_env = "musl") {
        exe::seal();
    }
}

/// Has this process run its program from where no container can write to it, if need be by executing it again. To be called
/// first of all before a container is made or entered, and while there is one thread.
pub fn protect_program() -> Result<(), String> {
    exe::protect().map_err(|error| error.to_string())
}
