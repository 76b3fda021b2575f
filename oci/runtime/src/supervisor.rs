//! Starting and finding containers. Each has one supervisor, `tucano_oci supervise`, a small single-threaded program in a
//! session of its own, that outlives its caller: it holds the container's stdio and waits for its end.
//!
//! A supervisor holds the lock of its container's home directory for all its life, from before its caller knows of the container. So
//! a home directory whose lock is free has no container, and one that is being started is never taken for lost.

mod ready;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Signal, pidfd_send_signal};

use crate::{
    channel::{Failure, Report},
    exe::Prepared,
    home::{self, Home, ProcessId, Record},
    launch::Exit,
};

pub use self::ready::{Ready, start};

/// Longest report of a supervisor.
const REPORT_LIMIT_BYTES: u64 = 64 << 10;

/// How long `find` waits for a start that is under way: longer than a start may take.
const FIND_PATIENCE: Duration = Duration::from_secs(40);

/// Most of a program that is read ahead.
const READ_AHEAD_BYTES: u64 = 128 << 20;

/// Why a container could not be started or reached: the step that failed, in words, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the home directory.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The home directory itself.
    #[error("cannot create the home directory {path}: {source}")]
    CreateHome {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is one already.
    #[error("a container runs already in {0}")]
    Running(PathBuf),
    /// The supervisor's program.
    #[error("cannot run {program}: {source}")]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor ended without a word.
    #[error("{program} ended without saying why; it printed: {printed}")]
    Silent {
        /// The program.
        program: PathBuf,
        /// Its stderr.
        printed: String,
    },
    /// A step of the start, or of an `exec`, failed; nothing of it remains.
    #[error("{step}: {message}")]
    Step {
        /// Which: such as "cgroup", "mounting proc on /proc", "program".
        step: String,
        /// Why.
        message: String,
    },
    /// The container ended meanwhile.
    #[error("the container has ended")]
    Ended,
    /// A process cannot be reached.
    #[error("cannot reach process {pid}: {source}")]
    Reach {
        /// Its number.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Not a signal.
    #[error("{0} is no signal's number")]
    BadSignal(i32),
    /// A command did not end in time, and was killed.
    #[error("the command did not end within {0:?} and was killed")]
    TimedOut(Duration),
}

/// A container and its supervisor, both alive.
#[derive(Debug)]
pub struct Running {
    /// The container's first process, as the caller's pid namespace numbers it.
    pub pid: i32,
    /// The supervisor; the descriptor polls readable when it has ended, and then the exit is on disk.
    pub supervisor: OwnedFd,
    /// None where it has ended and its supervisor is about to.
    container: Option<OwnedFd>,
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

/// What became of the container of this home directory. Never mistakes another process for it (pids are checked with
/// their start times). Waits for a start that is under way.
pub fn find(home: &Path) -> Result<Found, Error> {
    let home = Home(home);
    if !home.0.is_dir() {
        return Ok(Found::Nothing);
    }
    let deadline = Instant::now() + FIND_PATIENCE;
    loop {
        if let Some(lock) = home.lock()? {
            return ended(home, lock);
        }
        if let Some(running) = alive(home)? {
            return Ok(Found::Running(running));
        }
        if Instant::now() > deadline {
            return Err(Error::Step {
                step: "finding the container".into(),
                message: format!(
                    "{} is locked, but no supervisor tells its pid",
                    home.0.display()
                ),
            });
        }
        pause();
    }
}

/// Sends a signal to the container's first process.
pub fn signal(running: &Running, signal: i32) -> Result<(), Error> {
    let signal = Signal::from_named_raw(signal).ok_or(Error::BadSignal(signal))?;
    let container = running.container.as_ref().ok_or(Error::Ended)?;
    match pidfd_send_signal(container, signal) {
        Err(rustix::io::Errno::SRCH) => Err(Error::Ended),
        other => other.map_err(|error| Error::Reach {
            pid: running.pid,
            source: error.into(),
        }),
    }
}

/// Runs a command inside a container's namespaces, cgroup and restrictions, as `program exec <home> -- command`, and gives its exit
/// code (128 and the signal's number where one ended it). Ended after `timeout`. Its output is not kept. Blocking.
pub fn exec(
    program: &Path,
    home: &Path,
    command: &[String],
    timeout: Duration,
) -> Result<i32, Error> {
    let prepared = Prepared::of(program);
    let mut run_it = prepared.command();
    run_it
        .args(["exec-in", "--report", "--timeout-ms"])
        .arg(timeout.as_millis().to_string())
        .arg(home)
        .arg("--")
        .args(command)
        .stdin(Stdio::null());
    match run(program, run_it)? {
        Report::Ended { code } => Ok(code),
        Report::TimedOut => Err(Error::TimedOut(timeout)),
        other => Err(unexpected(program, other)),
    }
}

/// Has the kernel read the program from its beginning to its end. As it is executed, it would be read in pieces, and be kept in pieces,
/// which take longer to map for each process that runs it. One that cannot be read is told of when it is run. Blocking.
pub fn read_ahead(program: &Path) {
    if let Ok(program) = File::open(program) {
        let mut program = program.take(READ_AHEAD_BYTES);
        io::copy(&mut program, &mut io::sink()).ok();
    }
}

/// Whether containers of this node can have a user namespace: whether the kernel makes them and shows `directory`'s file
/// system through one. Blocking.
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

/// Runs the program, takes its line, and reaps it.
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

/// Descriptors of both processes, if both live. A container that has ended while its supervisor has not yet written down
/// how counts as alive: its end is told by the supervisor's.
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

fn alive(home: Home<'_>) -> Result<Option<Running>, Error> {
    let Some(record) = home.read::<Record>("supervisor.json")? else {
        return Ok(None);
    };
    let same_boot = home::boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
    match record.container.filter(|_| same_boot) {
        Some(container) => open_both(record.supervisor, container),
        None => Ok(None),
    }
}

/// With the lock held, nothing changes any more.
fn ended(home: Home<'_>, _lock: File) -> Result<Found, Error> {
    if let Some(exit) = home.read::<Exit>("exit.json")? {
        return Ok(Found::Exited(exit));
    }
    match home.read::<Record>("supervisor.json")? {
        Some(_) => Ok(Found::Lost),
        None => Ok(Found::Nothing),
    }
}

pub(crate) fn pause() {
    let short = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    rustix::event::poll(&mut [], Some(&short)).ok();
}
