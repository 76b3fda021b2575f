//! The confined process that reads what the other worker sends: it writes the copy of a volume, or compares it. The agent itself only
//! passes bytes on.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::tree::{
    Fault, compare,
    entry::{self, Bounds},
    target::{self, Resume},
};

/// Longest line that the process writes.
const EVENT_BYTES: u64 = 64 << 10;
/// The argument by which the agent starts itself as this process.
pub const ARGUMENT: &str = "copy-volume";

/// What the process does. Its standard input is the manifest and then the contents, or the digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Writes the copy.
    Write,
    /// Compares it.
    Compare,
}

/// The request, an argument of the process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    pub task: Task,
    /// What the manifest may have.
    pub bounds: Bounds,
}

/// What the process says, one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The manifest is good; the contents are wanted from here on.
    Resume(Resume),
    /// So many bytes of content are there.
    Done(u64),
    /// A large file is being compared.
    Reading,
    /// The copy differs, in words.
    Different(String),
    /// It has succeeded.
    Success,
    /// It has not.
    Failure {
        /// Why.
        message: String,
        /// Whether another attempt would end the same way.
        is_lasting: bool,
    },
}

/// Runs as the process, in the directory of the copy, which is its working directory. `confine` restricts it before it reads.
///
/// # Errors
/// The request is invalid, the process cannot be confined, or nobody reads what it says.
pub fn serve(request: &str, confine: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let request: Request =
        serde_json::from_str(request).map_err(|error| format!("the request: {error}"))?;
    confine()?;
    let root = File::open(".").map_err(|error| error.to_string())?;
    let mut input = BufReader::with_capacity(1 << 20, io::stdin().lock());
    let mut said = Ok(());
    let mut say = |event: &Event| said = entry::write_line(&mut io::stdout().lock(), event);
    let done = perform(request, &root, &mut input, &mut say);
    let last = done.unwrap_or_else(|fault| Event::Failure {
        message: fault.to_string(),
        is_lasting: fault.is_lasting(),
    });
    say(&last);
    said.map_err(|error| error.to_string())
}

fn perform(
    request: Request,
    root: &File,
    input: &mut impl BufRead,
    say: &mut impl FnMut(&Event),
) -> Result<Event, Fault> {
    let entries = entry::read(input, request.bounds)?;
    match request.task {
        Task::Write => {
            let resume = target::make(root, &entries)?;
            say(&Event::Resume(resume));
            let mut progress = |done| say(&Event::Done(done));
            target::write(root, &entries, resume, input, &mut progress)?;
            target::finish(root, &entries)?;
            Ok(Event::Success)
        }
        Task::Compare => {
            let mut sign = || {
                say(&Event::Reading);
                Ok(())
            };
            let different = compare::compare(root, &entries, input, &mut sign)?;
            Ok(different.map_or(Event::Success, Event::Different))
        }
    }
}

/// The process, as the agent has it.
#[derive(Debug)]
pub struct Helper<'a> {
    /// The directory of the copy.
    pub directory: &'a Path,
    /// The file with the manifest.
    pub manifest: &'a Path,
    /// What to do.
    pub request: Request,
    /// Ends the process once it is set.
    pub is_cancelled: &'a AtomicBool,
}

impl Helper<'_> {
    /// Runs the process to its end, with the manifest and then `body` as its input. Returns its last word. Blocking.
    ///
    /// # Errors
    /// The process cannot be started, or dies without a word.
    pub fn run(
        &self,
        mut body: mpsc::Receiver<Bytes>,
        on: &(dyn Fn(&Event) + Sync),
    ) -> io::Result<Event> {
        let manifest = File::open(self.manifest)?;
        let request = serde_json::to_string(&self.request)?;
        let mut child = Running(
            Command::new("/proc/self/exe")
                .args([ARGUMENT, &request])
                .current_dir(self.directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?,
        );
        let (stdin, stdout) = (child.0.stdin.take(), child.0.stdout.take());
        let pid = rustix::process::Pid::from_child(&child.0);
        let kill = || rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let last = std::thread::scope(|scope| {
            let listener = scope.spawn(|| {
                let mut last = None;
                let mut said = stdout.map(BufReader::new);
                let mut line = Vec::new();
                while let Some(event) = said.as_mut().and_then(|it| next_event(it, &mut line)) {
                    if self.is_cancelled.load(Ordering::Relaxed) {
                        kill().ok();
                    }
                    on(&event);
                    last = Some(event);
                }
                last
            });
            if let Some(mut stdin) = stdin {
                // What the process says tells why it reads no more.
                feed(&mut stdin, manifest, &mut body).ok();
            }
            // The sender gets an error: nothing reads any more.
            drop(body);
            listener.join()
        });
        let status = child.0.wait()?;
        let last = last.map_err(|_| io::Error::other("a thread panicked"))?;
        match last {
            Some(Event::Resume(_) | Event::Done(_) | Event::Reading) | None => Err(
                io::Error::other(format!("the copying process ended: {status}")),
            ),
            Some(last) => Ok(last),
        }
    }
}

fn feed(
    to: &mut impl Write,
    mut manifest: File,
    body: &mut mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    io::copy(&mut manifest, to)?;
    while let Some(chunk) = body.blocking_recv() {
        to.write_all(&chunk)?;
    }
    Ok(())
}

fn next_event(from: &mut impl BufRead, line: &mut Vec<u8>) -> Option<Event> {
    line.clear();
    from.take(EVENT_BYTES).read_until(b'\n', line).ok()?;
    serde_json::from_slice(line).ok()
}

/// A running process, killed if it is dropped before it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
