//! Starting `tucano_vhost`, and hearing from it that a namespace stands.

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

/// A holder of namespaces: killed and waited for when it is dropped.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// The process whose namespaces are meant: the child itself, or the init below it.
    pub(crate) process: Process,
}

impl Holder {
    /// Starts it and waits until it says that its namespaces stand. It reads a pipe that this process
    /// holds, if it is to die with it.
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
        // Its own process group: an interrupt from the terminal is for the creator, who ends its hosts in order.
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
        match listen(&mut child).and_then(|pid| Process::of(pid).map_err(|error| error.to_string()))
        {
            Ok(process) => Ok(Self { child, process }),
            Err(reason) => {
                end(&mut child);
                Err(not_ready(reason))
            }
        }
    }

    /// Kills it, and waits until it and everything in its pid namespace is gone.
    pub(crate) fn kill(self) -> Result<(), Error> {
        self.process.kill()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // What cannot be killed here is in the record, for the next creator.
        self.process.kill().ok();
        end(&mut self.child);
    }
}

/// Where `tucano_vhost` is: next to the running program, or one up from cargo's `deps`.
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

/// Reads lines until the namespaces stand; gives the pid of the process that holds them. A host's init says that it is
/// ready, and its parent, who alone knows it, which pid it has, in either order.
fn listen(child: &mut Child) -> Result<i32, String> {
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
    Err("it ended without a word".to_owned())
}

/// Killing fails only when it has ended, and then waiting only gives its status.
fn end(child: &mut Child) {
    if child.kill().is_ok() {
        child.wait().ok();
    }
}
