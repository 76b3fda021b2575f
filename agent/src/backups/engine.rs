//! The program `tucano_backup`: one child process for each operation.
//!
//! The request, with the secrets of the repository, goes to its standard input, whose end aborts it: it does not outlive the agent.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Pid, setpriority_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};
use tucano_backup::{Class, Event, Failure, Frame, Outcome, Request};
use tucano_oci_runtime::cgroup::Cgroup;
use zeroize::Zeroizing;

/// Priority of the program: services come first. The kernel derives the priority of its IO from it.
const NICE: i32 = 15;
/// Lines of text, such as a panic's, that an error has.
const TAIL_LINES: usize = 8;
/// Longest of these lines.
const TAIL_CHARACTERS: usize = 300;
/// Most bytes of events: a day of progress is a tenth of that.
const MAX_EVENT_BYTES: u64 = 64 << 20;
/// How the names of its cgroups begin.
const CGROUP: &str = "backup.";
/// Room for a request, so that no copy of it is left in memory when it grows.
const REQUEST_CAPACITY: usize = 64 << 10;

/// The program where no setting names it: beside the agent's, else where the package of the agent has it.
pub(super) fn usual_program() -> PathBuf {
    const NAME: &str = "tucano_backup";
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name(NAME);
    match beside.is_file() {
        true => beside,
        false => PathBuf::from("/usr/lib/tucano").join(NAME),
    }
}

/// How the program is started.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// Its path.
    pub(crate) program: PathBuf,
    /// The parent of its cgroups.
    pub(crate) cgroup: String,
    /// Its memory limit, in bytes.
    pub(crate) memory: u64,
}

/// Where frames go. Dropping it aborts the operation.
#[derive(Debug)]
pub(crate) struct Input(ChildStdin);

/// What the program says. Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct Events {
    lines: Lines<BufReader<Take<ChildStderr>>>,
    tail: VecDeque<String>,
    progress: Arc<AtomicU64>,
    /// Bytes before this operation.
    before: u64,
    child: Child,
    cgroup: Option<Cgroup>,
}

impl Engine {
    /// Starts an operation, which counts its bytes in `progress` on top of what that has.
    ///
    /// # Errors
    /// The program cannot be run.
    pub(crate) async fn start(
        &self,
        request: &Request,
        progress: &Arc<AtomicU64>,
    ) -> Result<(Input, Events, ChildStdout), Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let failed = |error: &dyn std::fmt::Display| {
            internal(format!("cannot run {}: {error}", self.program.display()))
        };
        let mut line = Zeroizing::new(Vec::with_capacity(REQUEST_CAPACITY));
        serde_json::to_writer(&mut *line, request).map_err(|error| failed(&error))?;
        line.push(b'\n');
        let mut child = Command::new(&self.program)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(failed(&"it has no standard streams"));
        };
        // Before the request: the threads that it starts then are like the first one.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = self.restrain(child.id(), number);
        let events = Events {
            lines: BufReader::new(stderr.take(MAX_EVENT_BYTES)).lines(),
            tail: VecDeque::new(),
            progress: Arc::clone(progress),
            before: progress.load(Ordering::Relaxed),
            child,
            cgroup,
        };
        // A program that has ended says why.
        stdin.write_all(&line).await.ok();
        Ok((Input(stdin), events, stdout))
    }

    /// Ends what an agent that was killed has left, and removes its cgroups. Best effort. Blocking.
    pub(crate) fn clear(&self) {
        let Ok(parent) = Cgroup::at(&self.cgroup) else {
            return;
        };
        for (controller, directory) in parent.directories {
            let entries = std::fs::read_dir(directory).into_iter().flatten();
            let left = entries.flatten().filter(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| name.starts_with(CGROUP))
            });
            for left in left {
                let cgroup = Cgroup {
                    directories: vec![(controller.clone(), left.path())],
                };
                if let Err(error) = cgroup.destroy() {
                    tracing::warn!(%error, "cannot remove the cgroup of an earlier agent's backup");
                }
            }
        }
    }

    /// Lowers the priority of the program and limits its memory. Best effort: it works without.
    fn restrain(&self, pid: Option<u32>, number: u64) -> Option<Cgroup> {
        let pid = i32::try_from(pid?).ok()?;
        if let Err(error) = setpriority_process(Pid::from_raw(pid), NICE) {
            tracing::debug!(%error, "a backup runs with the usual priority");
        }
        // Ids of processes have no dots.
        let path = format!("{}/{CGROUP}{number}", self.cgroup);
        match Cgroup::confine(&path, self.memory, pid) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::debug!(%error, "a backup has no memory limit");
                None
            }
        }
    }
}

impl Input {
    /// Sends bytes of a stream. What a program that has ended does not take is explained by its events.
    pub(crate) async fn data(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut frame = Vec::with_capacity(bytes.len() + 16);
        Frame::write_data(bytes, &mut frame)?;
        self.0.write_all(&frame).await
    }

    /// Lets the snapshot be saved.
    pub(crate) async fn commit(&mut self) -> std::io::Result<()> {
        let mut frame = Vec::new();
        Frame::Commit.write(&mut frame)?;
        self.0.write_all(&frame).await
    }
}

impl Events {
    /// The result of an operation; what it has to be told before, has been.
    ///
    /// # Errors
    /// It failed.
    pub(crate) async fn result(&mut self) -> Result<Outcome, Failure> {
        loop {
            if let Event::Result(outcome) = self.next().await? {
                return Ok(outcome);
            }
        }
    }

    /// Completes when everything is stored.
    ///
    /// # Errors
    /// It failed.
    pub(crate) async fn ready(&mut self) -> Result<(), Failure> {
        loop {
            if let Event::Ready(_) = self.next().await? {
                return Ok(());
            }
        }
    }

    /// The next event but progress, warnings and errors.
    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let line = self.lines.next_line().await;
            let Some(line) = line.unwrap_or_default() else {
                return Err(self.silent().await);
            };
            match serde_json::from_str(&line) {
                Ok(Event::Progress(progress)) => {
                    let done = self.before.saturating_add(progress.bytes);
                    self.progress.store(done, Ordering::Relaxed);
                }
                Ok(Event::Warning(warning)) => tracing::warn!(warning, "a backup"),
                Ok(Event::Error(failure)) => return Err(failure),
                Ok(event) => return Ok(event),
                Err(_) => self.remember(&line),
            }
        }
    }

    fn remember(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail
            .push_back(line.chars().take(TAIL_CHARACTERS).collect());
    }

    /// Why it has ended without a result.
    async fn silent(&mut self) -> Failure {
        let status = self.child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let mut message = format!("tucano_backup ended without a result ({status})");
        if status.contains("signal: 9") {
            message.push_str(
                ": somebody killed it, or its memory limit is too small (backups.memory in agent.toml)",
            );
        }
        for line in &self.tail {
            let _ = write!(message, "; {line}");
        }
        internal(message)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // The program, where it still runs, is killed with its cgroup.
        if let Some(cgroup) = self.cgroup.take() {
            self.child.start_kill().ok();
            std::thread::spawn(move || {
                if let Err(error) = cgroup.destroy() {
                    tracing::debug!(%error, "cannot remove the cgroup of a backup");
                }
            });
        }
    }
}

/// A failure of the program, or of its start.
pub(crate) fn internal(message: String) -> Failure {
    Failure {
        class: Class::Internal,
        message,
    }
}
