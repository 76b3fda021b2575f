//! A pool of prepared supervisors, so that a start does not wait for the runtime's `execve`. Each waits on a socket that only the
//! agent holds, and so ends with it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tucano_oci_runtime::{
    launch::Launch,
    supervisor::{self, Error, Running, Standby},
};

/// The pool.
#[derive(Debug)]
pub struct Supervisors {
    program: Arc<PathBuf>,
    size: usize,
    state: Mutex<State>,
    /// Held while the pool is being filled.
    filling: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Standby>,
    /// Whether the pool is to be filled.
    enabled: bool,
}

impl Supervisors {
    /// An empty, disabled pool for `size` supervisors.
    pub fn new(program: Arc<PathBuf>, size: usize) -> Self {
        Self {
            program,
            size,
            state: Mutex::default(),
            filling: Mutex::default(),
        }
    }

    /// Starts a container by a prepared supervisor, or by a new one if the pool is empty. Blocking.
    ///
    /// # Errors
    /// The supervisor or the container could not be started.
    pub fn start(&self, launch: &Launch) -> Result<Running, Error> {
        match self.take() {
            Some(ready) => ready.start(launch),
            None => supervisor::start(&self.program, launch),
        }
    }

    /// Allows the pool to be filled.
    pub fn enable(&self) {
        self.state().enabled = true;
    }

    /// Fills the pool, if it is enabled. Blocking.
    pub fn fill(&self) {
        let Ok(_filling) = self.filling.try_lock() else {
            return;
        };
        while self.state().needs_more(self.size) {
            match Standby::new(&self.program) {
                Ok(ready) => self.state().add(ready),
                Err(error) => {
                    // The next start tries again, and reports the error.
                    tracing::debug!(%error, "cannot prepare a supervisor");
                    return;
                }
            }
        }
    }

    /// Ends the prepared supervisors and disables the pool.
    pub fn drain(&self) {
        let _ended = std::mem::take(&mut *self.state());
    }

    fn take(&self) -> Option<Standby> {
        let mut state = self.state();
        // Skips supervisors that have ended, and those of a program that was replaced by an upgrade.
        std::iter::from_fn(|| state.ready.pop()).find(Standby::is_current)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn needs_more(&self, size: usize) -> bool {
        self.enabled && self.ready.len() < size
    }

    fn add(&mut self, ready: Standby) {
        if self.enabled {
            self.ready.push(ready);
        }
    }
}

#[cfg(test)]
mod tests;
