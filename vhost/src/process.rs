//! Processes identified by pid and start time, so that a reused pid is never mistaken for the original process.

use std::{fs, io, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A process that was seen alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) started: u64,
}

impl Process {
    /// The running process with this pid.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let started = start_time(pid)?;
        Ok(Self { pid, started })
    }

    /// Whether it still exists, even as a zombie.
    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid).ok() == Some(self.started)
    }

    /// Kills it and waits for its end, for an init that of its whole pid namespace. One that has ended is no error.
    pub(crate) fn kill(self) -> Result<(), Error> {
        let error = |source: io::Error| Error::Kill {
            pid: self.pid,
            source,
        };
        let Some(handle) = self.handle().map_err(error)? else {
            return Ok(());
        };
        match pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(error(errno.into())),
        }
        wait(&handle).map_err(error)
    }

    /// A pidfd, or `None` if it has ended. The start time is compared after opening, so the pidfd refers to this process.
    fn handle(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        Ok(self.is_alive().then_some(handle))
    }
}

/// Waits until the process has ended, when its pidfd polls readable (pidfd_open(2)).
fn wait(handle: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces and parentheses, so fields are counted from its end: state is the third.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(22 - 3))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_killed_and_a_reused_pid_is_not() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        let reused = Process {
            started: process.started + 1,
            ..process
        };
        reused.kill().unwrap();
        assert!(
            child.try_wait().unwrap().is_none(),
            "another process was killed"
        );
        process.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        process.kill().unwrap();
    }
}
