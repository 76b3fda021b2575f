//! Processes that are frozen for a moment, while a backup reads the last differences of their volumes.
//!
//! Each freeze has an end that does not depend on the backup: a thread of its own thaws when the time is over, a stop of the process
//! thaws first, and a mark in the process's directory has the next agent thaw what a killed one has left frozen.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tucano_api::ids::ProcessId;
use tucano_oci_runtime::cgroup::Cgroup;

use crate::files::remove_if_exists;

/// Why a process is no longer frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thawed {
    /// The time was over.
    Over,
    /// The process is being stopped, or somebody else has thawed it.
    Stopped,
    /// Everything was read.
    Done,
}

/// The frozen processes of this node.
#[derive(Debug, Default)]
pub struct Freezer {
    frozen: Mutex<BTreeMap<ProcessId, Arc<Freeze>>>,
    /// Counts freezes.
    begun: AtomicU64,
}

#[derive(Debug)]
struct Freeze {
    cgroup: Cgroup,
    mark: PathBuf,
    /// Why it has ended. Locked while that happens, so that it ends once.
    end: watch::Sender<Option<Thawed>>,
}

/// A frozen process. It is thawed at the latest when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    id: ProcessId,
    freezer: Arc<Freezer>,
    freeze: Arc<Freeze>,
    /// Ends the watchdog by being dropped.
    _watched: mpsc::Sender<()>,
}

impl Freezer {
    /// Freezes the cgroup of a process for so long at most; `mark` exists meanwhile. Blocking.
    ///
    /// # Errors
    /// Its processes do not stop in time, it is frozen already, or it is being stopped. Nothing is frozen then.
    pub fn freeze(
        self: &Arc<Self>,
        id: &ProcessId,
        cgroup: Cgroup,
        mark: PathBuf,
        limit: Duration,
    ) -> Result<Frozen, String> {
        let begun = Instant::now();
        let freeze = Arc::new(Freeze {
            cgroup,
            mark,
            end: watch::Sender::new(None),
        });
        {
            let mut frozen = self.frozen();
            if frozen.contains_key(id) {
                return Err(format!("{id} is frozen for another backup"));
            }
            frozen.insert(id.clone(), Arc::clone(&freeze));
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        let (watched, watchdog) = mpsc::channel();
        // From here on it thaws by being dropped.
        let frozen = Frozen {
            id: id.clone(),
            freezer: Arc::clone(self),
            freeze: Arc::clone(&freeze),
            _watched: watched,
        };
        let failed = |error: &dyn std::fmt::Display| format!("cannot freeze {id}: {error}");
        fs::write(&freeze.mark, "").map_err(|error| failed(&error))?;
        let stopped = freeze.cgroup.freeze_within(limit);
        stopped.map_err(|error| failed(&error))?;
        if freeze.end.borrow().is_some() {
            // It was thawed before all of it was frozen.
            freeze.cgroup.thaw().ok();
            return Err(failed(&"it is being stopped"));
        }
        let left = limit.saturating_sub(begun.elapsed());
        thread::Builder::new()
            .name("thaw".to_owned())
            .spawn(move || {
                if watchdog.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                    freeze.thaw(Thawed::Over);
                }
            })
            .map_err(|error| failed(&error))?;
        Ok(frozen)
    }

    /// Thaws a process that is about to be stopped.
    pub fn thaw(&self, id: &ProcessId) {
        let freeze = self.frozen().get(id).cloned();
        if let Some(freeze) = freeze {
            freeze.thaw(Thawed::Stopped);
        }
    }

    /// Waits until a process is not frozen. Returns the number of freezes so far: what was found out about the process counts if it
    /// is the same afterwards.
    pub async fn settled(&self, id: &ProcessId) -> u64 {
        loop {
            let begun = self.begun();
            let freeze = self.frozen().get(id).cloned();
            let Some(freeze) = freeze else {
                return begun;
            };
            let mut end = freeze.end.subscribe();
            drop(end.wait_for(Option::is_some).await);
            // It is removed in a moment.
            tokio::task::yield_now().await;
        }
    }

    /// The number of freezes so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn frozen(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<Freeze>>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Freeze {
    /// Thaws, unless that has happened. Blocking, yet not for long.
    fn thaw(&self, reason: Thawed) {
        self.end.send_if_modified(|end| {
            if end.is_some() {
                return false;
            }
            if let Err(error) = self.cgroup.thaw() {
                tracing::error!(%error, "cannot thaw a process");
            }
            remove_if_exists(&self.mark).ok();
            *end = Some(reason);
            true
        });
    }
}

impl Frozen {
    /// Completes when it is no longer frozen, with the reason.
    pub async fn thawed(&self) -> Thawed {
        let mut end = self.freeze.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        end.ok().and_then(|end| *end).unwrap_or(Thawed::Stopped)
    }

    /// Thaws the process. Says whether nothing of it has run since it was frozen, or why something has.
    pub fn thaw(self) -> Thawed {
        let is_whole = self.freeze.cgroup.is_stopped();
        let reason = match is_whole {
            true => Thawed::Done,
            false => Thawed::Stopped,
        };
        self.freeze.thaw(reason);
        let end = *self.freeze.end.borrow();
        end.unwrap_or(reason)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.freeze.thaw(Thawed::Stopped);
        let mut frozen = self.freezer.frozen();
        if frozen
            .get(&self.id)
            .is_some_and(|it| Arc::ptr_eq(it, &self.freeze))
        {
            frozen.remove(&self.id);
        }
    }
}

/// Thaws what an agent that was killed has left frozen. A container that an operator has frozen has no mark.
///
/// # Errors
/// The mark cannot be removed.
pub fn recover(cgroup: Option<Cgroup>, mark: &Path) -> io::Result<bool> {
    if !mark.exists() {
        return Ok(false);
    }
    if let Some(cgroup) = cgroup {
        cgroup.thaw().map_err(io::Error::other)?;
    }
    remove_if_exists(mark).map(|()| true)
}
