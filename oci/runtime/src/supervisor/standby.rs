//! Standby supervisors: processes that have daemonized and wait on a socket for the container to supervise.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{Error, REPORT_LIMIT_BYTES, Running, alive, failed, pause, unexpected};
use crate::{
    channel::{Channel, Report, StartRequest},
    exe::{FileId, SharedProgram},
    launch::Launch,
    state_dir::{self, StateDir},
    supervise, title,
};

/// How long a start waits for the lock to be released.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts a container: writes `launch.json`, runs `program supervise` and waits until the container's program has been
/// executed or a step has failed. Blocks for milliseconds.
///
/// The state directory is created if missing. Of an earlier container in it, the logs and the writable layer are kept
/// and the exit status is removed. The supervisor daemonizes, and the intermediate process is reaped before this
/// returns: the caller has no child to wait for.
pub fn start(program: &Path, launch: &Launch) -> Result<Running, Error> {
    LockedStateDir::acquire(launch)?.start_with(Standby::spawn(program)?)
}

/// A supervisor without a container. It exits when this value is dropped or the caller exits.
#[derive(Debug)]
pub struct Standby {
    supervisor: Channel,
    program: PathBuf,
    file: Option<FileId>,
    /// The intermediate process, until it is reaped.
    child: Option<Child>,
}

impl Standby {
    /// Runs `program supervise` and waits until it has daemonized. Blocks.
    pub fn new(program: &Path) -> Result<Self, Error> {
        let mut standby = Self::spawn(program)?;
        standby.reap()?;
        Ok(standby)
    }

    /// Whether the supervisor lives and its program has not been replaced.
    pub fn is_current(&self) -> bool {
        // It sends nothing before its request, so readable means closed.
        !state_dir::has_ended(&self.supervisor) && self.file == FileId::of(&self.program)
    }

    /// Like [`start`], but faster.
    pub fn start(self, launch: &Launch) -> Result<Running, Error> {
        LockedStateDir::acquire(launch)?.start_with(self)
    }

    fn spawn(program: &Path) -> Result<Self, Error> {
        let file = FileId::of(program);
        let (supervisor, there) = Channel::pair().map_err(failed(program))?;
        let prepared = SharedProgram::of(program);
        let child = prepared
            .command()
            .arg("supervise")
            .arg(title::placeholder())
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed(program))?;
        Ok(Self {
            supervisor,
            program: program.to_owned(),
            file,
            child: Some(child),
        })
    }

    /// Reaps the intermediate process.
    fn reap(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if child.wait().map_err(failed(&self.program))?.success() {
            return Ok(());
        }
        let mut printed = String::new();
        if let Some(stderr) = child.stderr.take() {
            let mut stderr = stderr.take(REPORT_LIMIT_BYTES);
            stderr
                .read_to_string(&mut printed)
                .map_err(failed(&self.program))?;
        }
        Err(self.silent(printed.trim()))
    }

    fn silent(&self, printed: &str) -> Error {
        Error::Silent {
            program: self.program.clone(),
            printed: printed.to_owned(),
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.reap().ok();
    }
}

fn running(report: Report, descriptors: Vec<OwnedFd>) -> Result<Running, Report> {
    match (report, <[_; 2]>::try_from(descriptors)) {
        (Report::Started { pid }, Ok([supervisor, container])) => Ok(Running {
            pid,
            supervisor,
            container: Some(container),
        }),
        (report, _) => Err(report),
    }
}

/// A locked state directory whose container is being started.
struct LockedStateDir<'a> {
    state_dir: StateDir<'a>,
    lock: File,
}

impl<'a> LockedStateDir<'a> {
    fn acquire(launch: &'a Launch) -> Result<Self, Error> {
        let state_dir = StateDir(&launch.state_dir);
        std::fs::create_dir_all(state_dir.0).map_err(|source| Error::CreateHome {
            path: state_dir.0.to_owned(),
            source,
        })?;
        let lock = lock(state_dir)?;
        supervise::clear(state_dir)?;
        state_dir.write("launch.json", launch)?;
        Ok(Self { state_dir, lock })
    }

    /// Passes the lock to the supervisor, so that it is held without interruption.
    fn start_with(self, mut standby: Standby) -> Result<Running, Error> {
        let Self { state_dir, lock } = self;
        let state_dir = state_dir.0.to_owned();
        // A failed send and a supervisor that exits both appear as a missing reply.
        let sent = standby
            .supervisor
            .send_with(&StartRequest { state_dir }, &[lock.as_fd()]);
        drop(lock);
        let answer = sent.and_then(|()| standby.supervisor.receive_with());
        let reaped = standby.reap();
        match answer {
            Ok(Some((report, descriptors))) => {
                running(report, descriptors).map_err(|report| unexpected(&standby.program, report))
            }
            // The supervisor's stderr says more.
            Ok(None) => Err(reaped.err().unwrap_or_else(|| standby.silent(""))),
            Err(error) => Err(reaped
                .err()
                .unwrap_or_else(|| failed(&standby.program)(error))),
        }
    }
}

/// Takes the lock. A concurrent `fork` in another thread may hold a copy of a released one for a moment.
fn lock(state_dir: StateDir<'_>) -> Result<File, Error> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        if let Some(lock) = state_dir.lock()? {
            return Ok(lock);
        }
        if Instant::now() > deadline || alive(state_dir)?.is_some() {
            return Err(Error::Running(state_dir.0.to_owned()));
        }
        pause();
    }
}
