//! Hooks: programs that a specification runs at points of a container's life (OCI runtime specification,
//! "POSIX-platform Hooks"). Each reads the container's state from stdin.

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::Hook;
pub(crate) use oci_spec::runtime::{Hooks, State};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};

use crate::channel::{Failure, Step};

/// Runs hooks of the runtime's side in order until one fails.
pub(crate) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Result<(), Failure> {
    Prepared::new(kind, hooks, state)?.run(Side::Runtime)
}

/// Runs every hook of the runtime's side in order; returns the failures.
pub(crate) fn run_all(kind: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Vec<Failure> {
    match Prepared::new(kind, hooks, state) {
        Ok(prepared) => prepared
            .run_each(Side::Runtime)
            .filter_map(Result::err)
            .collect(),
        Err(failure) => vec![failure],
    }
}

/// Where a hook's path is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// On the host: a hook runs in the bundle's directory, with the runtime's environment if it has none of its own.
    Runtime,
    /// In the container: a hook is a program of the image, and learns nothing of the runtime's environment.
    Container,
}

/// Hooks of one kind and their input. Once they are prepared, running them takes no other system calls than starting a
/// program and waiting for it: a container's hooks run under its seccomp filter.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    kind: &'a str,
    bundle: &'a Path,
    hooks: Vec<(&'a Hook, File)>,
}

impl<'a> Prepared<'a> {
    /// Writes the state, which hooks read from stdin, to a file for each of them.
    pub(crate) fn new(
        kind: &'a str,
        hooks: Option<&'a Vec<Hook>>,
        state: &'a State,
    ) -> Result<Self, Failure> {
        let hooks = hooks.into_iter().flatten();
        let with_input = |hook| Ok((hook, input(state).step(&step(kind, hook))?));
        Ok(Self {
            kind,
            bundle: state.bundle(),
            hooks: hooks.map(with_input).collect::<Result<_, Failure>>()?,
        })
    }

    /// Runs them in order until one fails.
    pub(crate) fn run(self, side: Side) -> Result<(), Failure> {
        self.run_each(side).collect()
    }

    fn run_each(self, side: Side) -> impl Iterator<Item = Result<(), Failure>> {
        let Self {
            kind,
            bundle,
            hooks,
        } = self;
        hooks.into_iter().map(move |(hook, input)| {
            let mut command = command(hook, side);
            if side == Side::Runtime && bundle.is_dir() {
                command.current_dir(bundle);
            }
            run_one(command.stdin(input), hook).step(&step(kind, hook))
        })
    }
}

/// Whether a hook failed.
pub(crate) fn is_hook(failure: &Failure) -> bool {
    is_hook_step(&failure.step)
}

/// Whether a step is that of a hook.
pub(crate) fn is_hook_step(step: &str) -> bool {
    step.starts_with("the ") && step.contains(" hook ")
}

fn step(kind: &str, hook: &Hook) -> String {
    format!("the {kind} hook {}", hook.path().display())
}

/// A file in memory with the state. A hook may leave it unread, which a pipe would punish by SIGPIPE.
fn input(state: &State) -> io::Result<File> {
    let create = |flags| memfd_create(c"state", flags | MemfdFlags::CLOEXEC);
    // Kernels before 6.3 do not know the flag.
    let memfd = create(MemfdFlags::NOEXEC_SEAL).or_else(|_| create(MemfdFlags::empty()))?;
    let mut file = File::from(memfd);
    file.write_all(&serde_json::to_vec(state)?)?;
    file.rewind()?;
    Ok(file)
}

fn run_one(command: &mut Command, hook: &Hook) -> Result<(), String> {
    let mut child = command
        .spawn()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    wait(&mut child, timeout).map_err(|error| format!("waiting for it: {error}"))?
}

fn command(hook: &Hook, side: Side) -> Command {
    let mut command = Command::new(hook.path());
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    if hook.env().is_some() || side == Side::Container {
        command.env_clear();
    }
    let environment = hook.env().iter().flatten();
    command
        .envs(environment.filter_map(|entry| entry.split_once('=')))
        .stdout(Stdio::null());
    command
}

/// Waits for a hook, whose stderr is the caller's. The outer error is this runtime's, the inner one the hook's.
fn wait(child: &mut Child, timeout: Option<Duration>) -> io::Result<Result<(), String>> {
    if let Some(timeout) = timeout
        && !ends_within(child, timeout)?
    {
        child.kill()?;
        child.wait()?;
        return Ok(Err(format!("it did not exit within {timeout:?}")));
    }
    let status = child.wait()?;
    Ok(if status.success() {
        Ok(())
    } else {
        Err(format!("it failed: {status}"))
    })
}

fn ends_within(child: &Child, timeout: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + timeout;
    let mut wanted = [PollFd::new(&process, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut wanted, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

#[cfg(test)]
mod tests;
