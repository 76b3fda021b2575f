//! restic's locks.
//!
//! rustic_core works without locks. restic does not: its `prune` deletes data that no snapshot has yet, also that of a
//! backup at work, unless it sees a lock. So this program takes the locks that restic takes: a shared one for storing and
//! restoring, an exclusive one for pruning, renewed while it works.
//!
//! A lock is stale, by restic's own rule, if it is older than half an hour, or if its program is no more on this host.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::{
    control::{Caller, lock},
    seal::{Seal, id},
    storage::Storage,
};
use crate::{Class, Failure};

/// Age from which a lock is stale; restic's.
const STALE: SignedDuration = SignedDuration::from_mins(30);

/// Interval of renewals; restic's.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// How long others may need to see a new lock; restic's.
const SETTLING: Duration = Duration::from_millis(200);

/// How long to wait before the next try.
const RETRY: Duration = Duration::from_secs(5);

/// A lock's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    time: String,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: i32,
    #[serde(default, skip_serializing_if = "is_root")]
    uid: u32,
    #[serde(default, skip_serializing_if = "is_root")]
    gid: u32,
}

fn is_root(id: &u32) -> bool {
    *id == 0
}

/// How a repository is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Beside others.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock, until it is dropped.
pub(super) struct Lock {
    files: Arc<Files>,
    /// Dropped to end the renewals.
    renewals: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Files {
    storage: Arc<Storage>,
    seal: Arc<Seal>,
    usage: Use,
    name: Mutex<Option<String>>,
}

impl Lock {
    /// Takes the lock, and waits for others' at most for `patience`.
    ///
    /// # Errors
    /// [`Class::Busy`]: another program has one.
    pub(super) fn take(
        storage: &Arc<Storage>,
        seal: &Arc<Seal>,
        usage: Use,
        caller: &Caller,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let files = Arc::new(Files {
            storage: Arc::clone(storage),
            seal: Arc::clone(seal),
            usage,
            name: Mutex::default(),
        });
        let mut left = patience;
        loop {
            match files.try_to_take(caller) {
                Err(failure) if failure.class == Class::Busy && !left.is_zero() => {
                    let pause = left.min(RETRY);
                    left -= pause;
                    caller.pause(pause)?;
                }
                result => break result?,
            }
        }
        let (stop, stopped) = channel::<()>();
        let renewed = Arc::clone(&files);
        let renewals = std::thread::spawn(move || {
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                // One that fails is followed by the next, before the lock is stale.
                let _ = renewed.write();
            }
        });
        Ok(Self {
            files,
            renewals: Some((stop, renewals)),
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((stop, renewals)) = self.renewals.take() {
            drop(stop);
            let _ = renewals.join();
        }
        self.files.remove();
    }
}

impl Files {
    fn try_to_take(&self, caller: &Caller) -> Result<(), Failure> {
        self.no_conflict()?;
        self.write()?;
        // Two that looked at the same time see each other now.
        let alone = caller.pause(SETTLING).and_then(|()| self.no_conflict());
        if alone.is_err() {
            self.remove();
        }
        alone
    }

    fn no_conflict(&self) -> Result<(), Failure> {
        let own = lock(&self.name).clone();
        for (name, record) in records(&self.storage, &self.seal)? {
            if own.as_ref() == Some(&name) || record.is_stale() {
                continue;
            }
            if self.usage == Use::Exclusive || record.exclusive {
                let location = self.storage.location();
                let Record {
                    hostname,
                    pid,
                    time,
                    ..
                } = record;
                return Err(Failure::new(
                    Class::Busy,
                    format!(
                        "the repository {location} is locked by process {pid} on {hostname} since {time}: try again later"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Writes a lock of this moment, then removes the one before.
    fn write(&self) -> Result<(), Failure> {
        let record = Record::own(self.usage);
        let content = serde_json::to_vec(&record).map_err(Failure::internal)?;
        let content = self.seal.seal(&content)?;
        let name = format!("locks/{}", &id(&content).to_hex()[..]);
        self.storage.put(&name, vec![Bytes::from(content)])?;
        let before = lock(&self.name).replace(name);
        match before {
            Some(before) => self.storage.remove(&before),
            None => Ok(()),
        }
    }

    fn remove(&self) {
        if let Some(name) = lock(&self.name).take() {
            // What stays behind is stale as soon as this process has ended.
            let _ = self.storage.remove(&name);
        }
    }
}

impl Record {
    fn own(usage: Use) -> Self {
        Self {
            time: Timestamp::now().to_string(),
            exclusive: usage == Use::Exclusive,
            hostname: hostname(),
            username: String::new(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        }
    }

    fn is_stale(&self) -> bool {
        let Ok(time) = self.time.parse::<Timestamp>() else {
            return false;
        };
        if Timestamp::now().duration_since(time) > STALE {
            return true;
        }
        if self.hostname != hostname() {
            return false;
        }
        let gone = |pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        Pid::from_raw(self.pid).is_some_and(gone)
    }
}

fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Every lock. One that vanishes meanwhile, or is not of this repository, is none.
fn records(storage: &Storage, seal: &Seal) -> Result<Vec<(String, Record)>, Failure> {
    let mut records = Vec::new();
    for (file, _) in storage.list("locks")? {
        let name = format!("locks/{file}");
        let Some(content) = storage.get(&name)? else {
            continue;
        };
        let content = seal.open(&content);
        let record = content.and_then(|content| serde_json::from_slice(&content).ok());
        records.extend(record.map(|record| (name, record)));
    }
    Ok(records)
}

/// Removes stale locks; says how many, and how many are left.
pub(super) fn remove_stale(storage: &Storage, seal: &Seal) -> Result<(u64, u64), Failure> {
    let (mut removed, mut left) = (0, 0);
    for (name, record) in records(storage, seal)? {
        if record.is_stale() {
            storage.remove(&name)?;
            removed += 1;
        } else {
            left += 1;
        }
    }
    Ok((removed, left))
}
