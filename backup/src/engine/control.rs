//! The caller's side: frames that come in, events that go out.

use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use crate::{BackedUp, Class, Event, Failure, Frame, Limits, Progress, REQUEST_BYTES, Request};

/// Frames of data that are read ahead.
const READ_AHEAD: usize = 16;

/// Waits for a lock that another thread held when it panicked, too: its data is counters and flags.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the request.
///
/// # Errors
/// The first line is none, or too long.
pub fn read_request(input: &mut BufReader<impl Read>) -> Result<Request, Failure> {
    let mut line = String::new();
    let read = input.take(REQUEST_BYTES).read_line(&mut line);
    read.map_err(|error| Failure::bad_request(format!("cannot read the request: {error}")))?;
    if !line.ends_with('\n') {
        return Err(Failure::bad_request(format!(
            "the request is not a line of at most {REQUEST_BYTES} bytes"
        )));
    }
    // The parser's messages may quote a value, and values are secrets.
    serde_json::from_str(&line).map_err(|error| {
        let (what, column) = (error.classify(), error.column());
        Failure::bad_request(format!(
            "the request is invalid at column {column}: {what:?}: see the crate tucano_backup for its form"
        ))
    })
}

/// What the caller has said so far.
#[derive(Debug, Default)]
enum Verdict {
    #[default]
    Open,
    Commit,
    Abort(String),
}

/// What the caller says, and whether it is still there.
#[derive(Debug, Default)]
pub(super) struct Caller {
    verdict: Mutex<Verdict>,
    changed: Condvar,
}

impl Caller {
    /// Follows the caller's frames, in a thread of its own. The second value has the stream's bytes.
    pub(super) fn follow(input: impl Read + Send + 'static) -> (Arc<Self>, Receiver<Vec<u8>>) {
        let caller = Arc::new(Self::default());
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let followed = Arc::clone(&caller);
        std::thread::spawn(move || followed.read(input, sender));
        (caller, receiver)
    }

    fn read(&self, mut input: impl Read, data: SyncSender<Vec<u8>>) {
        // Its end is the stream's.
        let mut data = Some(data);
        let reason = loop {
            match Frame::read(&mut input) {
                Ok(Some(Frame::Data(bytes))) => match &data {
                    // Nobody receives it where the operation has no stream, or is over.
                    Some(data) => drop(data.send(bytes)),
                    None => break "data came after the commit".to_owned(),
                },
                Ok(Some(Frame::Commit)) => {
                    self.say(Verdict::Commit);
                    data = None;
                }
                Ok(Some(Frame::Abort(reason))) => break format!("the caller gave up: {reason}"),
                Ok(None) => break "the caller is gone".to_owned(),
                Err(error) => break format!("the caller's input: {error}"),
            }
        };
        self.say(Verdict::Abort(reason));
    }

    fn say(&self, verdict: Verdict) {
        *lock(&self.verdict) = verdict;
        self.changed.notify_all();
    }

    /// Whether the operation is still wanted.
    ///
    /// # Errors
    /// [`Class::Aborted`]: the caller gave up, or is gone.
    pub(super) fn still_there(&self) -> Result<(), Failure> {
        match &*lock(&self.verdict) {
            Verdict::Abort(reason) => Err(aborted(reason)),
            Verdict::Open | Verdict::Commit => Ok(()),
        }
    }

    /// Whether the caller has said that the stream is complete.
    pub(super) fn has_committed(&self) -> bool {
        matches!(*lock(&self.verdict), Verdict::Commit)
    }

    /// Waits until the caller says that the snapshot may be saved.
    ///
    /// # Errors
    /// [`Class::Aborted`]: it says the opposite, is gone, or says nothing for too long.
    pub(super) fn wait_for_commit(&self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        let mut verdict = lock(&self.verdict);
        loop {
            match &*verdict {
                Verdict::Commit => return Ok(()),
                Verdict::Abort(reason) => return Err(aborted(reason)),
                Verdict::Open => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = format!("no commit came within {patience:?} (commit_seconds)");
                return Err(aborted(&reason));
            }
            let waited = self.changed.wait_timeout(verdict, left);
            verdict = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits, at most for `time`, and ends early where the operation is no longer wanted.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + time;
        let mut verdict = lock(&self.verdict);
        loop {
            if let Verdict::Abort(reason) = &*verdict {
                return Err(aborted(reason));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.changed.wait_timeout(verdict, left);
            verdict = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn aborted(reason: &str) -> Failure {
    Failure::new(Class::Aborted, format!("{reason}: no snapshot is saved"))
}

/// Where events go.
#[derive(Clone)]
pub(super) struct Reporter {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    output: Box<dyn Write + Send>,
    progress: Progress,
    said: Instant,
    interval: Duration,
    warnings_left: u32,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

impl Reporter {
    pub(super) fn new(output: Box<dyn Write + Send>, limits: &Limits) -> Self {
        let shared = Shared {
            output,
            progress: Progress::default(),
            said: Instant::now(),
            interval: Duration::from_millis(limits.progress_milliseconds.into()),
            warnings_left: limits.warnings,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Counts what was done, and says so from time to time.
    pub(super) fn advance(&self, files: u64, bytes: u64) {
        let mut shared = lock(&self.shared);
        shared.progress.files += files;
        shared.progress.bytes += bytes;
        if shared.said.elapsed() >= shared.interval {
            shared.said = Instant::now();
            let progress = shared.progress;
            shared.say(&Event::Progress(progress));
        }
    }

    /// Says something for the log.
    pub(super) fn warn(&self, message: &str) {
        let mut shared = lock(&self.shared);
        if let Some(left) = shared.warnings_left.checked_sub(1) {
            shared.warnings_left = left;
            shared.say(&Event::Warning(message.chars().take(500).collect()));
        }
    }

    /// Says that everything is stored.
    pub(super) fn ready(&self, result: &BackedUp) {
        lock(&self.shared).say(&Event::Ready(result.clone()));
    }
}

impl Shared {
    fn say(&mut self, event: &Event) {
        say(&mut self.output, event);
    }
}

/// Writes an event. A caller that does not read is no reason to fail: its end is noticed elsewhere.
pub fn say(output: &mut dyn Write, event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = output.write_all(&line).and_then(|()| output.flush());
    }
}
