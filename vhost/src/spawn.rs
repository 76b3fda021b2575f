//! Starts `tucano_vhost` and waits until its namespaces are set up.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Error,
    process::Process,
    settings::{FAILED, PID, READY},
};

/// A process that holds namespaces; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// The process in the namespaces: the child itself, or the init that it started.
    pub(crate) process: Process,
}

impl Holder {
    /// Starts the process and waits until its namespaces are set up. With `dies_with_creator` it ends when this process closes
    /// a pipe.
    pub(crate) fn start(
        what: &str,
        mut command: Command,
        dies_with_creator: bool,
    ) -> Result<Self, Error> {
        let stdin = if dies_with_creator {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        // A process group of its own: only the creator receives an interrupt from the terminal, and ends its hosts in order.
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: command.get_program().to_string_lossy().into_owned(),
                source,
            })?;
        let not_ready = |reason: String| Error::NotReady {
            what: what.to_owned(),
            reason,
        };
        match wait_until_ready(&mut child)
            .and_then(|pid| Process::of(pid).map_err(|error| error.to_string()))
        {
            Ok(process) => Ok(Self { child, process }),
            Err(reason) => {
                end(&mut child);
                Err(not_ready(reason))
            }
        }
    }

    /// Kills it, and waits for the end of its whole pid namespace.
    pub(crate) fn kill(self) -> Result<(), Error> {
        self.process.kill()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The next creator kills what survives, by the record.
        self.process.kill().ok();
        end(&mut self.child);
    }
}

/// The path of `tucano_vhost`: beside the running program, or in the parent of cargo's `deps`.
pub(crate) fn program() -> Result<PathBuf, Error> {
    let own = env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_owned();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let path = directory.join("tucano_vhost");
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::MissingProgram { path })
    }
}

/// Reads lines until the namespaces are set up; returns the pid of the process in them. A host's init reports that it is ready,
/// and its parent reports the init's pid, in any order.
fn wait_until_ready(child: &mut Child) -> Result<i32, String> {
    let stdout = child.stdout.take().ok_or("it has no standard output")?;
    let (mut pid, mut ready) = (None, false);
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(reason.to_owned());
        }
        if let Some(number) = line.strip_prefix(PID) {
            pid = number.parse().ok();
        }
        ready |= line == READY;
        if let (Some(pid), true) = (pid, ready) {
            return Ok(pid);
        }
    }
    Err("it ended without an error message".to_owned())
}

/// Kills and reaps the child, unless it has ended.
fn end(child: &mut Child) {
    if child.kill().is_ok() {
        child.wait().ok();
    }
}
