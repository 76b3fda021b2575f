//! Single instance: a lock file that holds the balancer's process id.
//!
//! A balancer that drains gives the lock up at once and says so in the file. Its successor may then listen on the
//! same addresses while the old one still accepts, so that no client is refused in between. The successor removes that
//! mark once it listens: only then does the old one close its listeners.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

/// Exit status if the lock is taken.
pub const EXIT_LOCKED: u8 = 3;

/// The lock, held until this is dropped or the program ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// Whether the previous holder drains.
    pub follows_draining: bool,
}

/// What the file says after the process id while a balancer that drains may still accept clients.
const DRAINING: &str = "draining";

/// How often a draining balancer looks for its successor.
const SUCCESSOR_INTERVAL: Duration = Duration::from_millis(5);

/// How often the lock is tried.
const LOCK_TRIES: usize = 60;
/// Pause between two tries. All of them together take longer than others hold the lock when they look whether it is held, also
/// where the one that looks waits for a processor.
const LOOK_TIME: Duration = Duration::from_millis(5);

/// A lock that was given up.
#[derive(Debug)]
pub struct Released(PathBuf);

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another balancer holds it.
    #[error("another balancer{holder} is running: it holds {path}", path = path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
        /// ` (process N)`, if the file contains an id.
        holder: String,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot lock {0}; check that its directory exists and is writable")]
    Unusable(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Takes the lock and writes this process's id into the file.
    pub async fn take(path: &Path) -> Result<Self, LockError> {
        let unusable = |error| LockError::Unusable(path.to_owned(), error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(unusable)?;
        match lock_patiently(&file).await {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let follows_draining = content(&mut file).ends_with(DRAINING);
        let state = if follows_draining { DRAINING } else { "" };
        replace(&mut file, state).map_err(unusable)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            follows_draining,
        })
    }

    /// Lets the balancer that drains close its listeners: this one listens on the same addresses.
    pub fn listening(&mut self) -> Result<(), LockError> {
        if !self.follows_draining {
            return Ok(());
        }
        replace(&mut self.file, "").map_err(|error| LockError::Unusable(self.path.clone(), error))
    }

    /// Gives the lock up before the program ends.
    pub fn release(mut self) -> io::Result<Released> {
        replace(&mut self.file, DRAINING)?;
        self.file.unlock()?;
        Ok(Released(self.path))
    }
}

impl Released {
    /// Waits until another balancer holds the lock and listens.
    pub async fn wait_successor(&self) {
        while !self.has_successor() {
            sleep(SUCCESSOR_INTERVAL).await;
        }
    }

    fn has_successor(&self) -> bool {
        is_held(&self.0)
            && File::open(&self.0).is_ok_and(|mut file| is_listening(&content(&mut file)))
    }
}

/// Whether the holder of a lock file with this content listens. The file is empty for an instant while it is written.
fn is_listening(content: &str) -> bool {
    !content.is_empty() && !content.ends_with(DRAINING)
}

/// Whether a balancer holds this lock.
pub fn is_held(path: &Path) -> bool {
    let lock = File::open(path).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// Others look whether the lock is held by locking it for an instant.
async fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => sleep(LOOK_TIME).await,
            done => return done,
        }
    }
    file.try_lock()
}

/// Writes this process's id and `state`.
fn replace(file: &mut File, state: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", format!("{} {state}", std::process::id()).trim())
}

fn content(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn holder(file: &mut File) -> String {
    match content(file) {
        none if none.is_empty() => none,
        content => format!(" (process {})", content.trim_end_matches(DRAINING).trim()),
    }
}

#[cfg(test)]
mod tests;
