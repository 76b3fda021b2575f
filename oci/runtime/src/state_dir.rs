//! A container's state directory: its files, its lock, and the processes that they name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use procfs::FromRead;
use rustix::{
    fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, renameat_with},
    io::Errno,
    process::{Pid, PidfdFlags},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Maximum size of a JSON file: a specification with a thousand environment variables is far smaller.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// Typical files are smaller and are read at once.
const USUAL_FILE_BYTES: usize = 32 << 10;

/// Space reserved for `exit.json`, so that the exit status can be written on a full disk.
const EXIT_RESERVED_BYTES: usize = 256;

/// Why a file of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is corrupt.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A process, identified by pid and start time so that a reused pid is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Pid in the pid namespace that the supervisor was started in.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub(crate) start_time: u64,
}

/// A state directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateDir<'a>(pub(crate) &'a Path);

impl StateDir<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a JSON file; none if it does not exist, or is empty or zeroed as after a power failure.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path(name);
        let text = match read_bounded(&path) {
            Ok(text) if text.iter().all(|byte| *byte == 0) => return Ok(None),
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| Error::Damaged { path, source })
    }

    /// Writes a JSON file atomically. It is not synced: it describes running processes, which do not survive a power
    /// failure.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.prepare(name, value)?.commit()
    }

    /// Replaces an existing JSON file atomically.
    pub(crate) fn write_again<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.prepare(name, value)?.exchange()
    }

    /// Writes a JSON file under a temporary name.
    pub(crate) fn prepare<T: Serialize>(&self, name: &str, value: &T) -> Result<Prepared, Error> {
        let path = self.path(name);
        let temporary = self.path(&format!("{name}.tmp"));
        match write_file(&temporary, value) {
            Ok(()) => Ok(Prepared { temporary, path }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Removes a file. A missing file is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Write {
                path,
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// Reserves the space of `exit.json`.
    pub(crate) fn reserve_exit(&self) -> Result<File, Error> {
        let path = self.path("exit.json.tmp");
        let reserve = || {
            let mut file = File::create(&path)?;
            let at_once = FallocateFlags::empty();
            let bytes = EXIT_RESERVED_BYTES as u64;
            let allocated = rustix::fs::fallocate(&file, at_once, 0, bytes);
            file.write_all(&[b' '; EXIT_RESERVED_BYTES])?;
            match allocated {
                // Without fallocate, writing allocates the blocks.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.sync_data()?,
                other => other?,
            }
            Ok(file)
        };
        reserve().map_err(|source| Error::Write { path, source })
    }

    /// Writes the exit status into the reserved space and renames the file.
    pub(crate) fn write_exit<T: Serialize>(&self, reserved: &File, exit: &T) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        let path = self.path("exit.json");
        let put = || {
            let text = serde_json::to_vec(exit)?;
            // Trailing spaces are valid JSON.
            reserved.write_all_at(&text, 0)?;
            reserved.sync_data()?;
            fs::rename(self.path("exit.json.tmp"), &path)
        };
        put().map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })
    }

    /// Takes the lock that a living supervisor holds; none if it is held. Closing the last copy of the descriptor
    /// releases it. It must not be unlocked, which would release it for every copy.
    pub(crate) fn lock(&self) -> Result<Option<File>, Error> {
        let path = self.path("lock");
        let take = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        take().map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })
    }
}

/// A file that has been written and not renamed yet.
#[must_use]
#[derive(Debug)]
pub(crate) struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
}

impl Prepared {
    /// Renames the file into place.
    pub(crate) fn commit(self) -> Result<(), Error> {
        let Self { temporary, path } = self;
        fs::rename(&temporary, &path).map_err(|source| Error::Write { path, source })
    }

    /// Like [`Self::commit`] for an existing file. Exchanging avoids ext4's flush on replacing a file by rename (mount
    /// option `auto_da_alloc`).
    fn exchange(self) -> Result<(), Error> {
        let exchange = RenameFlags::EXCHANGE;
        match renameat_with(CWD, &self.temporary, CWD, &self.path, exchange) {
            Ok(()) => {
                // The temporary name now holds the old file.
                fs::remove_file(&self.temporary).ok();
                Ok(())
            }
            // The file does not exist, or the file system cannot exchange.
            Err(_) => self.commit(),
        }
    }
}

impl ProcessId {
    /// This process.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The process with this pid.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: stat(pid)?.starttime,
        })
    }

    /// Opens a pidfd; none if the process has exited, reaped or not.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let descriptor = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Checked last: while the pidfd is open, the pid is not reused.
        let same = stat(self.pid).is_ok_and(|stat| stat.starttime == self.start_time);
        Ok((same && !has_ended(&descriptor)).then_some(descriptor))
    }
}

/// Boot id.
pub(crate) fn boot_id() -> io::Result<String> {
    let mut text = String::with_capacity(64);
    File::open("/proc/sys/kernel/random/boot_id")?.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Whether the process of this pidfd has exited.
pub(crate) fn has_ended(process: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut wanted = [PollFd::new(process, PollFlags::IN)];
    let now = rustix::time::Timespec::default();
    matches!(poll(&mut wanted, Some(&now)), Ok(1..))
}

fn stat(pid: i32) -> io::Result<procfs::process::Stat> {
    procfs::process::Stat::from_file(format!("/proc/{pid}/stat")).map_err(io::Error::other)
}

/// Reads a JSON file of a state directory or bundle. A file that is too large is an error.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(USUAL_FILE_BYTES);
    File::open(path)?
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

fn write_file<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // Specifications hold environment variables, which may be secrets.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&text)
}

#[cfg(test)]
mod tests;
