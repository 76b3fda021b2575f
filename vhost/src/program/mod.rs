//! The modes of the program. Each is single-threaded: namespaces of a process with threads cannot be entered or left.

pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod run;
pub(crate) mod switch;

use std::{io, io::Write, os::fd::AsFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One line to the creator, who may be gone.
fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot reach the creator")
}

/// Waits until the creator's end of the pipe on standard input is closed, or for ever if it is not to be heeded.
fn wait_for_creator(heed: bool, other: Option<&dyn AsFd>) -> anyhow::Result<bool> {
    let stdin = io::stdin();
    let mut polled = Vec::new();
    if heed {
        polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
    }
    polled.extend(other.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
            Ok(_) => return Ok(heed && polled[0].any().unwrap_or(true)),
        }
    }
}
