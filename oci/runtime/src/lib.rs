//! OCI runtime: turns a bundle's configuration into a process in namespaces, mounts, cgroups, capabilities and
//! seccomp. It knows nothing of clusters, images or networks. `unsafe` is confined to `sys.rs`.
//!
//! For callers: [`profile`] creates the specification of a sandbox, [`supervisor`] starts and finds containers,
//! [`cgroup`] reads and removes cgroups, [`confinement`] restricts a program that parses untrusted files to one
//! directory, [`copy`] copies directories of untrusted images, [`projects`] limits what directories hold. For the program `tucano_oci`: [`supervise`], [`exec`],
//! [`session`], [`probe`] and [`lifecycle`]. Beneath them: `container` (what happens inside), `start` (drives it from outside), `logs`, `channel` (messages between the
//! processes of a start), `exe` and `state_dir`.
//!
//! A container's state directory (`Launch::state_dir`) holds these files, written atomically:
//! - `launch.json`: the request ([`launch::Launch`]),
//! - `lock`: locked while there is a supervisor, from before the start is reported,
//! - `supervisor.json`: pid and start time of the supervisor and of the container's init process; cgroup and user,
//! - `attach`: the supervisor's socket for [`attach_client`], while the container runs,
//! - `exit.json`: the exit status ([`launch::Exit`]); its space is reserved as `exit.json.tmp`,
//! - `stdout.log`, `stderr.log`, and rotated files `.1`, `.2`…,
//! - `output.idx`, and rotated files: the order and the times of what is in the logs ([`output_index`]),
//! - `upper/`, `work/`: the writable layer.

pub mod arguments;
mod attach;
pub mod attach_client;
pub mod bundle;
pub mod cgroup;
mod channel;
pub mod confinement;
mod container;
pub mod copy;
mod exe;
pub mod exec;
pub mod features;
mod hooks;
pub mod launch;
pub mod lifecycle;
mod listener;
mod logs;
mod notification;
pub mod output_index;
pub mod probe;
pub mod profile;
pub mod projects;
mod record;
pub mod session;
mod signals;
mod start;
mod state_dir;
pub mod supervise;
pub mod supervisor;
mod sys;
mod systemd;
mod title;

/// Makes this program's relocation tables read-only. Call it first.
pub fn seal_program() {
    if cfg!(target_env = "musl") {
        exe::seal();
    }
}

/// Makes this process run its program from a read-only mount that no container can write to; re-executes the program
/// if necessary. Call it before a container is created or entered, while there is one thread.
pub fn protect_program() -> Result<(), String> {
    exe::protect().map_err(|error| error.to_string())
}
