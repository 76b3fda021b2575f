//! Starting and finding containers. Each has one supervisor, `tucano_oci supervise`, a small single-threaded program in a
//! session of its own, that outlives its caller: it holds the container's stdio and waits for its end.

use std::{os::fd::OwnedFd, path::Path};

use crate::launch::{Exit, Launch};

/// Why a container could not be started or reached: the step that failed, in words, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// A container and its supervisor, both alive.
#[derive(Debug)]
pub struct Running {
    /// The container's first process, as the caller's pid namespace numbers it.
    pub pid: i32,
    /// The supervisor; the descriptor polls readable when it has ended, and then the exit is on disk.
    pub supervisor: OwnedFd,
}

/// What a home directory tells.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    Running(Running),
    /// It ended, and this is how.
    Exited(Exit),
    /// It does not run, and how it ended is not known (its supervisor was killed, or the node lost power).
    Lost,
    /// It was never started.
    Nothing,
}

/// Starts a container: writes `launch.json`, runs `program supervise <home>` and waits until the container's program
/// has been executed or a step has failed. Blocking; takes milliseconds.
pub fn start(program: &Path, launch: &Launch) -> Result<Running, Error> {
    let _ = (program, launch);
    unimplemented!()
}

/// What became of the container of this home directory. Never mistakes another process for it (pids are checked with
/// their start times).
pub fn find(home: &Path) -> Result<Found, Error> {
    let _ = home;
    unimplemented!()
}

/// Sends a signal to the container's first process.
pub fn signal(running: &Running, signal: i32) -> Result<(), Error> {
    let _ = (running, signal);
    unimplemented!()
}

/// Runs a command inside a container's namespaces, cgroup and restrictions, as `program exec <home> -- command`, and gives its exit
/// code. Ended after `timeout`. Blocking.
pub fn exec(
    program: &Path,
    home: &Path,
    command: &[String],
    timeout: std::time::Duration,
) -> Result<i32, Error> {
    let _ = (program, home, command, timeout);
    unimplemented!()
}
