//! Starting the program, and looking at trees.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread::JoinHandle,
};

use rustix::fs::{lgetxattr, llistxattr};
use tempfile::TempDir;
use tucano_backup::{
    BackedUp, Backup, ENVIRONMENT, Event, Failure, Forget, Forgotten, Frame, Init, Initialised,
    Limits, List, Listed, Operation, Outcome, Parent, Repository, Request, Restore, Restored, S3,
    Secret, Source, Target,
};

pub(crate) const PASSWORD: &str = "a password of tests";
pub(crate) const VOLUME: &str = "shop/data/1";

/// A repository and how to ask for it.
pub(crate) struct Asking {
    pub(crate) repository: Repository,
    pub(crate) limits: Limits,
}

/// A repository in a directory.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) asking: Asking,
}

impl Place {
    /// A place for a repository.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let location = format!("file://{}", directory.path().join("repository").display());
        let asking = Asking::new(location, None);
        Self { directory, asking }
    }

    /// An empty repository.
    pub(crate) fn initialised() -> Self {
        let place = Self::new();
        assert!(place.asking.init().expect("a repository").created);
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    /// A new directory beside the repository.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).expect("a directory");
        path
    }

    /// Runs restic on the repository.
    pub(crate) fn restic(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        let mut child = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(self.path())
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("restic");
        let mut stdin = child.stdin.take().expect("standard input");
        stdin.write_all(input).expect("restic reads");
        drop(stdin);
        let output = child.wait_with_output().expect("restic ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(text),
        }
    }

    /// restic finds the repository sound, data included.
    pub(crate) fn restic_checks(&self) {
        self.restic(&["check", "--read-data"], b"")
            .expect("a sound repository");
    }
}

impl Asking {
    pub(crate) fn new(location: String, s3: Option<S3>) -> Self {
        Self {
            repository: Repository {
                location,
                password: Secret::new(PASSWORD),
                expected_id: None,
                s3,
            },
            limits: Limits {
                lock_seconds: 0,
                pack_mib: 1.try_into().expect("one"),
                ..Limits::default()
            },
        }
    }

    /// Starts an operation. Nothing but the request is sent.
    pub(crate) fn start(&self, operation: Operation) -> Running {
        let request = Request {
            repository: self.repository.clone(),
            operation,
            limits: self.limits.clone(),
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_tucano_backup"))
            .env_clear()
            .envs(ENVIRONMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut input = child.stdin.take().expect("standard input");
        let mut line = serde_json::to_vec(&request).expect("JSON");
        line.push(b'\n');
        // It may have ended already.
        let _ = input.write_all(&line);
        let mut output = child.stdout.take().expect("standard output");
        let output = std::thread::spawn(move || {
            let mut content = Vec::new();
            output.read_to_end(&mut content).expect("the output");
            content
        });
        let events = BufReader::new(child.stderr.take().expect("standard error"));
        Running {
            child,
            input: Some(input),
            output: Some(output),
            events: Box::new(events),
        }
    }

    /// Runs an operation whose commit comes at once.
    pub(crate) fn run(&self, operation: Operation) -> Result<Outcome, Failure> {
        let mut running = self.start(operation);
        running.send(&Frame::Commit);
        running.finish().0
    }

    pub(crate) fn init(&self) -> Result<Initialised, Failure> {
        match self.run(Operation::Init(Init {}))? {
            Outcome::Initialised(initialised) => Ok(initialised),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn backup(&self, backup: Backup) -> Result<BackedUp, Failure> {
        match self.run(Operation::Backup(backup))? {
            Outcome::BackedUp(backed_up) => Ok(backed_up),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn restore(&self, snapshot: &str, path: &Path) -> Result<Restored, Failure> {
        let target = Target::Tree {
            path: path.to_owned(),
        };
        let snapshot = snapshot.to_owned();
        match self.run(Operation::Restore(Restore { snapshot, target }))? {
            Outcome::Restored(restored) => Ok(restored),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn restore_stream(&self, snapshot: &str) -> Result<Vec<u8>, Failure> {
        let running = self.start(Operation::Restore(Restore {
            snapshot: snapshot.to_owned(),
            target: Target::Stream,
        }));
        let (result, content) = running.finish();
        result.map(|_| content)
    }

    pub(crate) fn list(&self) -> Listed {
        match self.run(Operation::List(List::default())).expect("a list") {
            Outcome::Listed(listed) => listed,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn forget(&self, volume: &str, keep: u32) -> Forgotten {
        let forget = Forget {
            volume: volume.to_owned(),
            keep: keep.try_into().expect("more than none"),
            prune: true,
        };
        match self.run(Operation::Forget(forget)).expect("forgotten") {
            Outcome::Forgotten(forgotten) => forgotten,
            other => panic!("{other:?}"),
        }
    }

    /// Stores a stream, which succeeds.
    pub(crate) fn dump(&self, content: &[u8]) -> Result<BackedUp, Failure> {
        let mut running = self.start(Operation::Backup(stream()));
        running.send(&Frame::Data(content.to_vec()));
        running.send(&Frame::Commit);
        match running.finish().0? {
            Outcome::BackedUp(backed_up) => Ok(backed_up),
            other => panic!("{other:?}"),
        }
    }
}

/// A backup of a tree.
pub(crate) fn tree(path: &Path) -> Backup {
    Backup {
        source: Source::Tree {
            path: path.to_owned(),
        },
        volume: VOLUME.to_owned(),
        host: "w1".to_owned(),
        tags: Vec::new(),
        time: None,
        parent: Parent::Newest,
        draft: false,
        forget_parent: false,
        skip_unreadable: false,
    }
}

/// A backup of a stream.
pub(crate) fn stream() -> Backup {
    Backup {
        source: Source::Stream {
            name: "dump.sql".to_owned(),
        },
        ..tree(Path::new("/"))
    }
}

/// The program at work.
pub(crate) struct Running {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    output: Option<JoinHandle<Vec<u8>>>,
    events: Box<dyn BufRead + Send>,
}

impl Running {
    pub(crate) fn send(&mut self, frame: &Frame) {
        // It may have ended already.
        let input = self.input.as_mut().expect("an open input");
        let _ = frame.write(input).and_then(|()| input.flush());
    }

    /// The caller is gone.
    pub(crate) fn close(&mut self) {
        self.input = None;
    }

    /// Waits until everything is stored.
    pub(crate) fn wait_until_ready(&mut self) -> BackedUp {
        loop {
            match self.next() {
                Some(Event::Ready(ready)) => return ready,
                Some(Event::Progress(_) | Event::Warning(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        self.events.read_line(&mut line).expect("an event");
        assert!(!line.contains(PASSWORD), "{line}");
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
    }

    /// Waits for the end: the result, and standard output.
    pub(crate) fn finish(self) -> (Result<Outcome, Failure>, Vec<u8>) {
        self.ended(|| {})
    }

    /// Waits for the end, and looks at the program at each event before.
    pub(crate) fn finish_with(self, look: impl FnMut()) -> Result<Outcome, Failure> {
        self.ended(look).0
    }

    fn ended(mut self, mut look: impl FnMut()) -> (Result<Outcome, Failure>, Vec<u8>) {
        let mut last = None;
        while let Some(event) = self.next() {
            look();
            last = Some(event);
        }
        let code = self.child.wait().expect("the end").code();
        let output = self.output.take().expect("the output").join();
        let output = output.expect("the output");
        match last {
            Some(Event::Result(outcome)) => {
                assert_eq!(code, Some(0));
                (Ok(outcome), output)
            }
            Some(Event::Error(failure)) => {
                assert_eq!(code, Some(failure.class.exit_code().into()));
                (Err(failure), output)
            }
            other => panic!("the last event is {other:?}"),
        }
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("the end");
    }
}

/// Everything that a tree has, by path: what has to be the same after a restore.
pub(crate) fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut facts = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    collect(root, root, &mut inodes, &mut facts);
    facts
}

fn collect(
    root: &Path,
    path: &Path,
    inodes: &mut BTreeMap<u64, PathBuf>,
    facts: &mut BTreeMap<PathBuf, String>,
) {
    let metadata = fs::symlink_metadata(path).expect("metadata");
    let inner = path.strip_prefix(root).expect("below the root").to_owned();
    let content = if metadata.is_file() {
        format!("{:?}", fnv(&fs::read(path).expect("content")))
    } else if metadata.is_symlink() {
        format!("{:?}", fs::read_link(path).expect("a target"))
    } else {
        String::new()
    };
    let first = match metadata.is_dir() {
        true => None,
        false => Some(
            inodes
                .entry(metadata.ino())
                .or_insert(inner.clone())
                .clone(),
        ),
    };
    let fact = format!(
        "mode {:o}, owner {}:{}, time {}.{}, content {content}, the file of {first:?}, attributes {:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        attributes(path),
    );
    facts.insert(inner, fact);
    if metadata.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        entries.sort();
        for entry in entries {
            collect(root, &entry, inodes, facts);
        }
    }
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let Ok(length) = llistxattr(path, &mut names) else {
        return Vec::new();
    };
    names.truncate(length);
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value);
            value.truncate(length.expect("a value"));
            (name.to_owned(), value)
        })
        .collect();
    all.sort();
    all
}

fn fnv(content: &[u8]) -> (usize, u64) {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    (content.len(), hash)
}

/// Bytes that do not compress, of a seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
