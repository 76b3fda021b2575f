//! A container's home directory: what is in it, and who is alive.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use procfs::FromRead;
use rustix::{
    fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, renameat_with},
    io::Errno,
    process::{Pid, PidfdFlags},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{cgroup::Cgroup, container::user::User};

/// Largest JSON file that is read: a specification with a thousand environment variables is far smaller.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// What most of them are smaller than, so that they are read at once.
const USUAL_FILE_BYTES: usize = 32 << 10;

/// Space set aside for `exit.json` while there is some, so that a full disk cannot make the exit forgotten.
const EXIT_RESERVED_BYTES: usize = 256;

/// Why a file of the home directory could not be used.
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
    /// It is not what was written.
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

/// A process that is not mistaken for another one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number in the pid namespace that the supervisor was started in.
    pub(crate) pid: i32,
    /// When it was started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub(crate) start_time: u64,
}

/// `supervisor.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The boot in which the processes' numbers mean something.
    pub(crate) boot_id: String,
    pub(crate) supervisor: ProcessId,
    /// Absent until it is about to be executed.
    pub(crate) container: Option<ProcessId>,
    pub(crate) cgroup: Cgroup,
    /// Who the container's program runs as.
    pub(crate) user: Option<User>,
}

/// The home directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'a>(pub(crate) &'a Path);

impl Home<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The content of a JSON file, or none where there is no such file, or one of nothing or zeros, as a power failure
    /// leaves it.
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

    /// Writes a JSON file so that a reader sees all of it or the one before. Nobody waits for the disk: what is written here is
    /// about what runs, and after a power failure nothing does.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.prepare(name, value)?.put()
    }

    /// The same of one that was written already.
    pub(crate) fn write_again<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.prepare(name, value)?.exchange()
    }

    /// Writes a JSON file beside its place.
    pub(crate) fn prepare<T: Serialize>(&self, name: &str, value: &T) -> Result<Prepared, Error> {
        let path = self.path(name);
        let temporary = self.path(&format!("{name}.tmp"));
        match write_file(&temporary, value) {
            Ok(()) => Ok(Prepared { temporary, path }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Removes a file; absent is fine.
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

    /// Sets the space of `exit.json` aside.
    pub(crate) fn reserve_exit(&self) -> Result<File, Error> {
        let path = self.path("exit.json.tmp");
        let reserve = || {
            let mut file = File::create(&path)?;
            let at_once = FallocateFlags::empty();
            let bytes = EXIT_RESERVED_BYTES as u64;
            let allocated = rustix::fs::fallocate(&file, at_once, 0, bytes);
            file.write_all(&[b' '; EXIT_RESERVED_BYTES])?;
            match allocated {
                // Where blocks cannot be asked for, they come with what is written to them.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.sync_data()?,
                other => other?,
            }
            Ok(file)
        };
        reserve().map_err(|source| Error::Write { path, source })
    }

    /// Puts the exit into the space set aside and gives it its name.
    pub(crate) fn write_exit<T: Serialize>(&self, reserved: &File, exit: &T) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        let path = self.path("exit.json");
        let put = || {
            let text = serde_json::to_vec(exit)?;
            // What follows it are spaces, which JSON allows.
            reserved.write_all_at(&text, 0)?;
            reserved.sync_data()?;
            fs::rename(self.path("exit.json.tmp"), &path)
        };
        put().map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })
    }

    /// Takes the lock that a living supervisor holds, or none where it is held. It is given back when the last copy of the
    /// descriptor is closed: never by unlocking, which would take it from those that share it.
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

/// A file that is written and not yet in its place.
#[must_use]
#[derive(Debug)]
pub(crate) struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
}

impl Prepared {
    /// Has it take the place of the one before.
    pub(crate) fn put(self) -> Result<(), Error> {
        let Self { temporary, path } = self;
        fs::rename(&temporary, &path).map_err(|source| Error::Write { path, source })
    }

    /// The same where there is one before: to rename a file over another one, ext4 writes it to the disk first (its mount option
    /// `auto_da_alloc`).
    fn exchange(self) -> Result<(), Error> {
        let exchange = RenameFlags::EXCHANGE;
        match renameat_with(CWD, &self.temporary, CWD, &self.path, exchange) {
            Ok(()) => {
                // This is now the one before.
                fs::remove_file(&self.temporary).ok();
                Ok(())
            }
            // There is none, or the file system cannot.
            Err(_) => self.put(),
        }
    }
}

impl ProcessId {
    /// This very process.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: stat(pid)?.starttime,
        })
    }

    /// A descriptor of it, or none where it has ended (be it not yet reaped).
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let descriptor = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Only now: with the descriptor held, the number cannot be given to another process in between.
        let same = stat(self.pid).is_ok_and(|stat| stat.starttime == self.start_time);
        Ok((same && !has_ended(&descriptor)).then_some(descriptor))
    }
}

/// The identity of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    let mut text = String::with_capacity(64);
    File::open("/proc/sys/kernel/random/boot_id")?.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Whether the process of this pidfd has ended.
pub(crate) fn has_ended(process: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut wanted = [PollFd::new(process, PollFlags::IN)];
    let now = rustix::time::Timespec::default();
    matches!(poll(&mut wanted, Some(&now)), Ok(1..))
}

fn stat(pid: i32) -> io::Result<procfs::process::Stat> {
    procfs::process::Stat::from_file(format!("/proc/{pid}/stat")).map_err(io::Error::other)
}

/// A JSON file, of a home directory or a bundle, whole; one that is too large is an error.
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
    File::create(path)?.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_written_and_absence_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home(directory.path());
        assert_eq!(home.read::<u32>("n.json").unwrap(), None);
        for lost in ["", "\0\0"] {
            fs::write(home.path("n.json"), lost).unwrap();
            assert_eq!(home.read::<u32>("n.json").unwrap(), None);
        }
        home.write("n.json", &7).unwrap();
        assert_eq!(home.read::<u32>("n.json").unwrap(), Some(7));
        for (name, value) in [("n.json", 8), ("other.json", 9)] {
            home.write_again(name, &value).unwrap();
            assert_eq!(home.read::<u32>(name).unwrap(), Some(value));
            assert!(!home.path(&format!("{name}.tmp")).exists());
        }
        home.remove("n.json").unwrap();
        home.remove("n.json").unwrap();
    }

    #[test]
    fn an_endless_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("big.json"))
            .unwrap()
            .set_len(FILE_LIMIT_BYTES + 1)
            .unwrap();
        let error = Home(directory.path()).read::<u32>("big.json").unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }

    #[test]
    fn the_reserved_exit_is_valid_json() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home(directory.path());
        let reserved = home.reserve_exit().unwrap();
        home.write_exit(&reserved, &[1, 2]).unwrap();
        assert_eq!(home.read::<Vec<u8>>("exit.json").unwrap(), Some(vec![1, 2]));
    }

    #[test]
    fn only_one_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home(directory.path());
        let held = home.lock().unwrap();
        assert!(held.is_some());
        assert!(home.lock().unwrap().is_none());
        drop(held);
        assert!(home.lock().unwrap().is_some());
    }

    #[test]
    fn another_process_of_the_same_number_is_not_mistaken() {
        let own = ProcessId::own().unwrap();
        assert!(own.open().unwrap().is_some());
        let earlier = ProcessId {
            start_time: own.start_time - 1,
            ..own
        };
        assert!(earlier.open().unwrap().is_none());
    }
}
