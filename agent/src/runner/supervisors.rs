//! Supervisors that are ready before their containers are: to execute the runtime's program, and to leave the agent, takes time that
//! a start need not. They wait over sockets of the agent's alone, and so end with it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tucano_oci_runtime::{
    launch::Launch,
    supervisor::{self, Error, Running, Standby},
};

/// Some of them.
#[derive(Debug)]
pub struct Supervisors {
    program: Arc<PathBuf>,
    size: usize,
    waiting: Mutex<Waiting>,
    /// Held by the one who makes more.
    alone: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    ready: Vec<Standby>,
    /// Whether there are to be any.
    wanted: bool,
}

impl Supervisors {
    /// None are ready yet; `size` are to be.
    pub fn new(program: Arc<PathBuf>, size: usize) -> Self {
        Self {
            program,
            size,
            waiting: Mutex::default(),
            alone: Mutex::default(),
        }
    }

    /// Has one that is ready start a container, or a new one where there is none. Blocking.
    pub fn start(&self, launch: &Launch) -> Result<Running, Error> {
        match self.take() {
            Some(ready) => ready.start(launch),
            None => supervisor::start(&self.program, launch),
        }
    }

    /// There are to be some, from now on.
    pub fn want(&self) {
        self.waiting().wanted = true;
    }

    /// Makes what is missing, where any are wanted. Blocking.
    pub fn fill(&self) {
        let Ok(_alone) = self.alone.try_lock() else {
            return;
        };
        while self.waiting().lacks(self.size) {
            match Standby::new(&self.program) {
                Ok(ready) => self.waiting().add(ready),
                Err(error) => {
                    // Who starts a container tries it again, and tells.
                    tracing::debug!(%error, "no supervisor could be made ready");
                    return;
                }
            }
        }
    }

    /// Ends those that are ready; there are to be none.
    pub fn dismiss(&self) {
        let _ended = std::mem::take(&mut *self.waiting());
    }

    fn take(&self) -> Option<Standby> {
        let mut all = self.waiting();
        // One that has ended, or is of a program that has been replaced, is of no use.
        std::iter::from_fn(|| all.ready.pop()).find(Standby::is_current)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lacks(&self, size: usize) -> bool {
        self.wanted && self.ready.len() < size
    }

    fn add(&mut self, ready: Standby) {
        if self.wanted {
            self.ready.push(ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Of a program that says nothing and stays until it is told of a container, which it does not start.
    fn of_a_program(size: usize, line: &str) -> (tempfile::TempDir, Supervisors) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        write(&path, line);
        (directory, Supervisors::new(Arc::new(path), size))
    }

    /// By another process, for a child of another test's would hold it open for writing.
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

    /// A shell gives a command in the background another standard input than its own.
    const STAYS: &str = "exec 3<&0; cat <&3 >/dev/null 2>&1 &";

    fn ready(all: &Supervisors) -> usize {
        all.waiting().ready.len()
    }

    #[test]
    fn as_many_as_are_to_be_are_made_while_any_are_wanted() {
        for size in [0, 1, 3] {
            let (_directory, all) = of_a_program(size, STAYS);
            all.fill();
            assert_eq!(ready(&all), 0, "nobody wants one");
            all.want();
            all.fill();
            assert_eq!(ready(&all), size);
            assert_eq!(all.take().is_some(), size > 0);
            all.fill();
            assert_eq!(ready(&all), size);
            all.dismiss();
            all.fill();
            assert_eq!(ready(&all), 0, "nobody wants one any more");
        }
    }

    #[test]
    fn those_of_a_program_that_has_been_replaced_are_not_taken() {
        let (directory, all) = of_a_program(2, STAYS);
        all.want();
        all.fill();
        write(&directory.path().join("program"), STAYS);
        assert!(all.take().is_none());
        assert_eq!(ready(&all), 0);
        all.fill();
        assert!(all.take().is_some());
    }

    #[test]
    fn one_that_has_ended_is_not_taken_and_a_program_that_fails_makes_none() {
        let (_directory, all) = of_a_program(1, "exit 0");
        all.want();
        all.fill();
        assert!(all.take().is_none());
        let (_directory, all) = of_a_program(1, "exit 3");
        all.want();
        all.fill();
        assert_eq!(ready(&all), 0);
    }
}
