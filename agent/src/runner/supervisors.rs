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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A pool whose supervisors are shell scripts.
    fn pool_of(size: usize, line: &str) -> (tempfile::TempDir, Supervisors) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        write(&path, line);
        (directory, Supervisors::new(Arc::new(path), size))
    }

    /// Written by another process: a child that another test forks meanwhile would hold it open for writing (ETXTBSY).
    fn write(path: &std::path::Path, line: &str) {
        let next = path.with_extension("next");
        let script = format!("printf '#!/bin/sh\\n%s\\n' '{line}' >{}", next.display());
        let written = std::process::Command::new("sh")
            .args(["-c", &script])
            .status();
        assert!(written.unwrap().success());
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    /// A shell redirects the standard input of background commands, so it is passed by another descriptor.
    const STAYS: &str = "exec 3<&0; cat <&3 >/dev/null 2>&1 &";

    fn ready(pool: &Supervisors) -> usize {
        pool.state().ready.len()
    }

    #[test]
    fn an_enabled_pool_is_filled_to_its_size() {
        for size in [0, 1, 3] {
            let (_directory, pool) = pool_of(size, STAYS);
            pool.fill();
            assert_eq!(ready(&pool), 0, "it is disabled");
            pool.enable();
            pool.fill();
            assert_eq!(ready(&pool), size);
            assert_eq!(pool.take().is_some(), size > 0);
            pool.fill();
            assert_eq!(ready(&pool), size);
            pool.drain();
            pool.fill();
            assert_eq!(ready(&pool), 0, "it is disabled again");
        }
    }

    #[test]
    fn supervisors_of_a_replaced_program_are_not_used() {
        let (directory, pool) = pool_of(2, STAYS);
        pool.enable();
        pool.fill();
        write(&directory.path().join("program"), STAYS);
        assert!(pool.take().is_none());
        assert_eq!(ready(&pool), 0);
        pool.fill();
        assert!(pool.take().is_some());
    }

    #[test]
    fn ended_supervisors_are_not_used_and_a_failing_program_prepares_none() {
        let (_directory, pool) = pool_of(1, "exit 0");
        pool.enable();
        pool.fill();
        assert!(pool.take().is_none());
        let (_directory, pool) = pool_of(1, "exit 3");
        pool.enable();
        pool.fill();
        assert_eq!(ready(&pool), 0);
    }
}
