//! Starts and finds containers. Each has a supervisor, `tucano_oci supervise`, a small single-threaded process in its
//! own session that outlives its caller, holds the container's stdio and waits for its exit.
//!
//! A supervisor holds the lock of the state directory for its whole life, from before its caller knows of the
//! container. So a free lock means that there is no container, and a container that is being started is never
//! considered lost.

mod standby;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::pidfd_send_signal;

use crate::{
    channel::{Failure, Report},
    exe::SharedProgram,
    launch::Exit,
    record::Record,
    signals,
    state_dir::{self, ProcessId, StateDir},
};

pub use self::standby::{Standby, start};

/// Maximum size of a supervisor's report.
const REPORT_LIMIT_BYTES: u64 = 64 << 10;

/// How long [`find`] waits for a start in progress: longer than a start may take.
const FIND_TIMEOUT: Duration = Duration::from_secs(40);

/// How long `find` waits for the record of a locked state directory.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of bytes of a program that are read ahead.
const READ_AHEAD_BYTES: u64 = 128 << 20;

/// Why a container could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the state directory.
    #[error(transparent)]
    StateDir(#[from] state_dir::Error),
    /// The state directory cannot be created.
    #[error("cannot create the state_dir directory {path}: {source}")]
    CreateHome {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A container runs in this state directory.
    #[error("a container is already running in {0}")]
    Running(PathBuf),
    /// The supervisor's program cannot be run.
    #[error("cannot run {program}: {source}")]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor exited without a report.
    #[error("{program} exited without a report; its stderr: {printed}")]
    Silent {
        /// The program.
        program: PathBuf,
        /// Its stderr.
        printed: String,
    },
    /// A step of the start, or of an `exec`, failed and was cleaned up.
    #[error("{step}: {message}")]
    Step {
        /// The step, such as "cgroup", "mounting proc on /proc", "program".
        step: String,
        /// Why.
        message: String,
    },
    /// The container has exited.
    #[error("the container has exited")]
    Ended,
    /// A process cannot be reached.
    #[error("cannot reach process {pid}: {source}")]
    Reach {
        /// Its pid.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Not a signal number.
    #[error("{0} is not a signal number")]
    BadSignal(i32),
    /// A command exceeded its time limit and was killed.
    #[error("the command did not exit within {0:?} and was killed")]
    TimedOut(Duration),
}

/// A running container and its supervisor.
#[derive(Debug)]
pub struct Running {
    /// Pid of the container's init process in the caller's pid namespace.
    pub pid: i32,
    /// Pidfd of the supervisor. It becomes readable when the supervisor has exited; the exit status is on disk then.
    pub supervisor: OwnedFd,
    /// None if the container has exited and its supervisor is about to.
    container: Option<OwnedFd>,
}

/// Status of a container according to its state directory.
#[derive(Debug)]
pub enum Status {
    /// Running.
    Running(Running),
    /// Exited, with this status.
    Exited(Exit),
    /// Not running, exit status unknown: the supervisor was killed, or the node lost power.
    Lost,
    /// Never started.
    NeverStarted,
}

/// Determines a container's status. Pids are verified by their start times, so a reused pid is never mistaken for the
/// container. Waits for a start in progress.
pub fn find(state_dir: &Path) -> Result<Status, Error> {
    let state_dir = StateDir(state_dir);
    if !state_dir.0.is_dir() {
        return Ok(Status::NeverStarted);
    }
    let begin = Instant::now();
    loop {
        if let Some(lock) = state_dir.lock()? {
            return ended(state_dir, lock);
        }
        if let Some(running) = alive(state_dir)? {
            return Ok(Status::Running(running));
        }
        // The record is written at the beginning of a start; without it there is nothing to wait for.
        let timeout = match state_dir.path("supervisor.json").exists() {
            true => FIND_TIMEOUT,
            false => RECORD_TIMEOUT,
        };
        if begin.elapsed() > timeout {
            return Err(Error::Step {
                step: "finding the container".into(),
                message: format!(
                    "{} is locked, but no supervisor has recorded its pid",
                    state_dir.0.display()
                ),
            });
        }
        pause();
    }
}

/// Sends a signal to the container's init process.
pub fn signal(running: &Running, signal: i32) -> Result<(), Error> {
    let signal = signals::from_number(signal).ok_or(Error::BadSignal(signal))?;
    let container = running.container.as_ref().ok_or(Error::Ended)?;
    match pidfd_send_signal(container, signal) {
        Err(rustix::io::Errno::SRCH) => Err(Error::Ended),
        other => other.map_err(|error| Error::Reach {
            pid: running.pid,
            source: error.into(),
        }),
    }
}

/// Runs a command in a container, with its namespaces, cgroup and restrictions, and returns its exit code (128 plus
/// the signal number if a signal killed it). The command is killed after `timeout`; its output is discarded. Blocks.
pub fn exec(
    program: &Path,
    state_dir: &Path,
    command: &[String],
    timeout: Duration,
) -> Result<i32, Error> {
    let prepared = SharedProgram::of(program);
    let mut run_it = prepared.command();
    run_it
        .args(["exec-in", "--report", "--timeout-ms"])
        .arg(timeout.as_millis().to_string())
        .arg(state_dir)
        .arg("--")
        .args(command)
        .stdin(Stdio::null());
    match run(program, run_it)? {
        Report::Ended { code } => Ok(code),
        Report::TimedOut => Err(Error::TimedOut(timeout)),
        other => Err(unexpected(program, other)),
    }
}

/// Reads a program from beginning to end. Page faults would read it in small folios instead, which are slower to map
/// by every process that runs it. Errors are reported when the program is run. Blocks.
pub fn read_ahead(program: &Path) {
    if let Ok(program) = File::open(program) {
        let mut program = program.take(READ_AHEAD_BYTES);
        io::copy(&mut program, &mut io::sink()).ok();
    }
}

/// Whether containers on this node can have user namespaces with layers on the file system of `directory`. Blocks.
pub fn user_namespaces_work(program: &Path, directory: &Path) -> bool {
    Command::new(program)
        .arg("probe-user-namespaces")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the program, reads its report, and reaps it.
fn run(program: &Path, mut command: Command) -> Result<Report, Error> {
    let failed = failed(program);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(&failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout.take(REPORT_LIMIT_BYTES));
        stdout.read_line(&mut line).map_err(&failed)?;
    }
    let mut printed = String::new();
    if line.is_empty()
        && let Some(stderr) = child.stderr.take()
    {
        let mut stderr = stderr.take(REPORT_LIMIT_BYTES);
        stderr.read_to_string(&mut printed).map_err(&failed)?;
    }
    child.wait().map_err(&failed)?;
    serde_json::from_str(&line).map_err(|_| Error::Silent {
        program: program.to_owned(),
        printed: printed.trim().to_owned(),
    })
}

fn failed(program: &Path) -> impl Fn(io::Error) -> Error {
    |source| Error::Program {
        program: program.to_owned(),
        source,
    }
}

fn unexpected(program: &Path, report: Report) -> Error {
    match report {
        Report::Failed(Failure { step, message }) => Error::Step { step, message },
        other => Error::Silent {
            program: program.to_owned(),
            printed: format!("{other:?}"),
        },
    }
}

/// Opens pidfds of both processes if the supervisor lives. A container that has exited while its supervisor is still
/// recording that counts as running: the supervisor's exit signals its end.
fn open_both(supervisor: ProcessId, container: ProcessId) -> Result<Option<Running>, Error> {
    let open = |process: ProcessId| {
        process.open().map_err(|source| Error::Reach {
            pid: process.pid,
            source,
        })
    };
    let Some(supervisor) = open(supervisor)? else {
        return Ok(None);
    };
    Ok(Some(Running {
        pid: container.pid,
        supervisor,
        container: open(container)?,
    }))
}

fn alive(state_dir: StateDir<'_>) -> Result<Option<Running>, Error> {
    let Some(record) = state_dir.read::<Record>("supervisor.json")? else {
        return Ok(None);
    };
    let same_boot = state_dir::boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
    match record.container.filter(|_| same_boot) {
        Some(container) => open_both(record.supervisor, container),
        None => Ok(None),
    }
}

/// While the lock is held, nothing changes.
fn ended(state_dir: StateDir<'_>, _lock: File) -> Result<Status, Error> {
    if let Some(exit) = state_dir.read::<Exit>("exit.json")? {
        return Ok(Status::Exited(exit));
    }
    match state_dir.read::<Record>("supervisor.json")? {
        Some(_) => Ok(Status::Lost),
        None => Ok(Status::NeverStarted),
    }
}

pub(crate) fn pause() {
    let short = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    rustix::event::poll(&mut [], Some(&short)).ok();
}
