//! The modes of the program. Each is single-threaded, because a multi-threaded process cannot change some of its namespaces.

pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod run;
pub(crate) mod switch;

use std::{io, io::Write, os::fd::AsFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sends one line to the creator.
fn report(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot reach the creator")
}

/// Waits until the creator closes the pipe on standard input (if `dies_with_creator`) or `other` is readable. True for the former.
fn wait_for_creator(dies_with_creator: bool, other: Option<&dyn AsFd>) -> anyhow::Result<bool> {
    let stdin = io::stdin();
    let mut polled = Vec::new();
    if dies_with_creator {
        polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
    }
    polled.extend(other.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
            Ok(_) => return Ok(dies_with_creator && polled[0].any().unwrap_or(true)),
        }
    }
}
