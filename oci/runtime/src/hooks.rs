//! Hooks: programs that a specification runs at points of a container's life (OCI runtime specification,
//! "POSIX-platform Hooks"). Each reads the container's state from stdin.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::Hook;
pub(crate) use oci_spec::runtime::{Hooks, State};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};

use crate::channel::{Failure, Step};

/// Runs hooks in order until one fails.
pub(crate) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Result<(), Failure> {
    hooks
        .into_iter()
        .flatten()
        .try_for_each(|hook| run_named(kind, hook, state))
}

/// Runs every hook in order; returns the failures.
pub(crate) fn run_all(kind: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Vec<Failure> {
    hooks
        .into_iter()
        .flatten()
        .filter_map(|hook| run_named(kind, hook, state).err())
        .collect()
}

fn run_named(kind: &str, hook: &Hook, state: &State) -> Result<(), Failure> {
    let step = format!("the {kind} hook {}", hook.path().display());
    run_one(hook, state).step(&step)
}

fn run_one(hook: &Hook, state: &State) -> Result<(), String> {
    let text = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    let mut child = command(hook)
        .spawn()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook may exit without reading its stdin.
        match stdin.write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(format!("cannot write the state to its stdin: {error}"));
            }
            _ => {}
        }
    }
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    wait(&mut child, timeout).map_err(|error| format!("waiting for it: {error}"))?
}

fn command(hook: &Hook) -> Command {
    let mut command = Command::new(hook.path());
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    let environment = hook.env().iter().flatten();
    command
        .env_clear()
        .envs(environment.filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
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
