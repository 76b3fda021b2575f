//! Runs a program on a host, or in a switch's network namespace.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitCode, ExitStatus},
};

use anyhow::{Context, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigSet, Signal, kill, raise},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

/// Signals that are forwarded to the program.
const FORWARDED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// `net <pid> <program> <arguments>…`: executes the program in the network namespace of `pid`.
pub(crate) fn in_network(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let (pid, command) = split(arguments)?;
    let namespace =
        File::open(format!("/proc/{pid}/ns/net")).context("the network does not exist any more")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network")?;
    execute(command)
}

/// `run <pid> <program> <arguments>…`: runs the program in all namespaces of the init `pid`, forwards signals to it, and exits
/// with its status. The program is a child because a process cannot change its own pid namespace.
pub(crate) fn in_host(own_path: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let (pid, command) = split(arguments)?;
    let mut signals = SigSet::empty();
    for signal in FORWARDED.into_iter().chain([Signal::SIGCHLD]) {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    let received =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("cannot read signals")?;
    enter(pid)?;
    let child = Command::new(own_path)
        .arg("exec")
        .args(command)
        .spawn()
        .context("cannot start a process on the host")?;
    exit_like(wait_and_forward(child, &received)?, &signals)
}

/// `exec <program> <arguments>…`: executes the program, which is killed when its parent ends.
pub(crate) fn replace(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot set the parent death signal")?;
    SigSet::all()
        .thread_unblock()
        .context("cannot unblock signals")?;
    execute(arguments)
}

fn split(arguments: &[OsString]) -> anyhow::Result<(i32, &[OsString])> {
    let [pid, command @ ..] = arguments else {
        bail!("the pid is missing");
    };
    let pid = pid
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .context("the pid is not a number")?;
    Ok((pid, command))
}

/// The exit codes are those of env(1): 127 when there is no such program, 126 when it cannot be executed.
fn execute(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = command else {
        bail!("the program is missing");
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("tucano_vhost: cannot run {}: {error}", program.display());
    Ok(ExitCode::from(match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }))
}

fn enter(pid: i32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("0 is not a pid")?;
    let host = pidfd_open(pid, PidfdFlags::empty()).context("the host is not running")?;
    let directory = env::current_dir();
    setns(
        host,
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )
    .context("cannot enter the host")?;
    // Entering a mount namespace changes the working directory to its root. A directory that hosts do not see is replaced by it.
    if let Ok(directory) = directory {
        env::set_current_dir(directory).or_else(|_| env::set_current_dir("/"))?;
    }
    Ok(())
}

fn wait_and_forward(mut child: Child, received: &SignalFd) -> anyhow::Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            return Ok(status);
        }
        let Some(info) = received.read_signal().context("cannot read signals")? else {
            continue;
        };
        let signal = Signal::try_from(i32::try_from(info.ssi_signo)?)?;
        if signal != Signal::SIGCHLD {
            kill(pid, signal).context("cannot forward a signal")?;
        }
    }
}

/// Exits with the program's exit code, or by the signal that killed it.
fn exit_like(status: ExitStatus, blocked: &SigSet) -> anyhow::Result<ExitCode> {
    let Some(signal) = status.signal() else {
        return Ok(ExitCode::from(u8::try_from(
            status.code().unwrap_or(0) & 0xff,
        )?));
    };
    // The program has dumped core already, if it had to.

    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot disable core dumps")?;
    blocked.thread_unblock().context("cannot unblock signals")?;
    raise(Signal::try_from(signal)?).context("cannot raise the signal")?;
    Ok(ExitCode::from(u8::try_from(128 + signal)?))
}
