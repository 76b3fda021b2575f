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
mod tests {
    use super::*;

    fn hooks(script: &str, timeout: Option<u64>) -> Vec<Hook> {
        let mut hook = serde_json::json!({
            "path": "/bin/sh", "args": ["name", "-c", script], "env": ["PLACE=here"]
        });
        if let Some(timeout) = timeout {
            hook["timeout"] = timeout.into();
        }
        vec![serde_json::from_value(hook).unwrap()]
    }

    fn try_run(script: &str, timeout: Option<u64>) -> Result<(), Failure> {
        let mut state = State::default();
        state.set_id("box".into());
        run("prestart", Some(&hooks(script, timeout)), &state)
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let script = format!(
            "(/bin/cat; echo; echo $PLACE ${{HOME-none}}) > {}",
            out.display()
        );
        try_run(&script, Some(60)).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let (state, rest) = text.split_once('\n').unwrap();
        let state: State = serde_json::from_str(state).unwrap();
        assert_eq!(state.id(), "box");
        assert_eq!(rest, "here none\n");
    }

    #[test]
    fn a_hook_without_env_has_the_runtimes_on_the_host_and_none_in_a_container() {
        let hook: Hook = serde_json::from_value(serde_json::json!({"path": "/x"})).unwrap();
        assert_eq!(command(&hook, Side::Runtime).get_envs().count(), 0);
        assert!(!format!("{:?}", command(&hook, Side::Runtime)).contains("env -i"));
        assert!(format!("{:?}", command(&hook, Side::Container)).contains("env -i"));
        let empty = serde_json::json!({"path": "/x", "env": []});
        let empty: Hook = serde_json::from_value(empty).unwrap();
        assert!(format!("{:?}", command(&empty, Side::Runtime)).contains("env -i"));
    }

    #[test]
    fn failing_and_hanging_hooks_are_errors() {
        let failed = try_run("exit 3", None).unwrap_err();
        assert!(
            failed.to_string().contains("prestart hook /bin/sh"),
            "{failed}"
        );
        assert!(failed.to_string().contains('3'), "{failed}");
        let endless = try_run("exec /bin/sleep 1000", Some(1)).unwrap_err();
        assert!(endless.message.contains("did not exit within"), "{endless}");
    }

    #[test]
    fn a_failed_hook_stops_the_others_except_for_poststop() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let mut all = hooks("exit 1", None);
        all.extend(hooks(&format!(": > {}", mark.display()), None));
        assert!(run("prestart", Some(&all), &State::default()).is_err());
        assert!(!mark.exists());
        assert_eq!(run_all("poststop", Some(&all), &State::default()).len(), 1);
        assert!(mark.exists());
    }
}
