//! Supervisors that wait for their containers: each has left its caller, and is told over a socket whose supervisor it becomes.

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
    channel::{Channel, Order, Report},
    exe::{FileId, Prepared},
    home::{self, Home},
    launch::Launch,
    supervise, title,
};

/// How long a start waits for a lock that nobody alive holds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Starts a container: writes `launch.json`, runs `program supervise` and waits until the container's program has been
/// executed or a step has failed. Blocking; takes milliseconds.
///
/// The home directory is made where missing; what an earlier container of it left (its exit, its logs, its writable
/// layer) is kept but for the exit. The supervisor forks itself away from the process that is run here, which is reaped
/// before this returns: the caller has no child to wait for, and init reaps the supervisor.
pub fn start(program: &Path, launch: &Launch) -> Result<Running, Error> {
    Place::take(launch)?.give(Ready::spawn(program)?)
}

/// A supervisor without a container, of which nothing is left once this value is dropped or its process ends.
#[derive(Debug)]
pub struct Ready {
    supervisor: Channel,
    program: PathBuf,
    file: Option<FileId>,
    /// What it has forked itself away from, until that is reaped.
    child: Option<Child>,
}

impl Ready {
    /// Runs `program supervise`, which leaves the caller and goes its own way. Blocking.
    pub fn new(program: &Path) -> Result<Self, Error> {
        let mut ready = Self::spawn(program)?;
        ready.reap()?;
        Ok(ready)
    }

    /// Whether it lives, and is of the program that is at its path now.
    pub fn is_current(&self) -> bool {
        // Nothing comes from it before it is told of a container, but its end.
        !home::has_ended(&self.supervisor) && self.file == FileId::of(&self.program)
    }

    /// As [`start`], in less time.
    pub fn start(self, launch: &Launch) -> Result<Running, Error> {
        Place::take(launch)?.give(self)
    }

    fn spawn(program: &Path) -> Result<Self, Error> {
        let file = FileId::of(program);
        let (supervisor, there) = Channel::pair().map_err(failed(program))?;
        let prepared = Prepared::of(program);
        let child = prepared
            .command()
            .arg("supervise")
            .arg(title::room())
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

    /// The supervisor is no child of this process any more, then.
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

impl Drop for Ready {
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

/// A home directory that is this caller's until its container has been started.
struct Place<'a> {
    home: Home<'a>,
    lock: File,
}

impl<'a> Place<'a> {
    fn take(launch: &'a Launch) -> Result<Self, Error> {
        let home = Home(&launch.home);
        std::fs::create_dir_all(home.0).map_err(|source| Error::CreateHome {
            path: home.0.to_owned(),
            source,
        })?;
        let lock = lock(home)?;
        supervise::clear(home)?;
        home.write("launch.json", launch)?;
        Ok(Self { home, lock })
    }

    /// The lock passes to the supervisor, and so is held without interruption.
    fn give(self, mut ready: Ready) -> Result<Running, Error> {
        let Self { home, lock } = self;
        let home = home.0.to_owned();
        // What cannot be sent is answered by nothing, as is what is sent to one that ends.
        let sent = ready.supervisor.send_with(&Order { home }, &[lock.as_fd()]);
        drop(lock);
        let answer = sent.and_then(|()| ready.supervisor.receive_with());
        let reaped = ready.reap();
        match answer {
            Ok(Some((report, descriptors))) => {
                running(report, descriptors).map_err(|report| unexpected(&ready.program, report))
            }
            // What it printed tells more.
            Ok(None) => Err(reaped.err().unwrap_or_else(|| ready.silent(""))),
            Err(error) => Err(reaped
                .err()
                .unwrap_or_else(|| failed(&ready.program)(error))),
        }
    }
}

/// The home directory's lock. Another thread's `fork` may hold a copy of it for a moment after it was given back.
fn lock(home: Home<'_>) -> Result<File, Error> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = home.lock()? {
            return Ok(lock);
        }
        if Instant::now() > deadline || alive(home)?.is_some() {
            return Err(Error::Running(home.0.to_owned()));
        }
        pause();
    }
}
