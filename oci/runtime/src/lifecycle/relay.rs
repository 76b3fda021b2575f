//! Between this process's terminal and that of a container in the foreground: bytes both ways, and the size.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use oci_spec::runtime::{BoxBuilder, Process};
use rustix::{
    event::{PollFd, PollFlags},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::channel::{Failure, Step, receive_descriptors};

const STEP: &str = "terminal";

/// Most that is taken from one side before the other has taken it.
const CHUNK_BYTES: usize = 16 << 10;

/// How often in a row the container may write before others have their turn.
const FAIR_ROUNDS: usize = 64;

/// Has a process begin with a terminal as large as ours, unless it says how large: set only later, its program could see
/// another one.
pub(super) fn size_like_own(process: &mut Process) {
    let own = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout()));
    if let (Ok(own), None) = (own, process.console_size())
        && own.ws_col > 0
    {
        let size = BoxBuilder::default()
            .height(u64::from(own.ws_row))
            .width(u64::from(own.ws_col));
        process.set_console_size(size.build().ok());
    }
}

/// The outer end of a container's terminal, and how ours was before.
pub(super) struct Relay {
    terminal: OwnedFd,
    /// Nobody but it interprets what is typed, until this ends.
    before: Option<Termios>,
    /// Typed, but not taken by the container yet.
    typed: Vec<u8>,
    has_input: bool,
    has_output: bool,
}

impl Relay {
    /// Takes the terminal from the socket that it comes over.
    pub(super) fn begin(socket: OwnedFd) -> Result<Self, Failure> {
        let terminal = receive(&socket).step(STEP)?;
        let flags = fcntl_getfl(&terminal).step(STEP)? | OFlags::NONBLOCK;
        fcntl_setfl(&terminal, flags).step(STEP)?;
        let before = tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).step(STEP)?;
        }
        let relay = Self {
            terminal,
            before,
            typed: Vec::new(),
            has_input: true,
            has_output: true,
        };
        // Ours may have changed since the other was made.
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of ours, if ours has one.
    pub(super) fn resize(&self) {
        let size = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout()));
        if let Some(size) = size.ok().filter(|size| size.ws_col > 0) {
            tcsetwinsize(&self.terminal, size).ok();
        }
    }

    /// What there is to wait for.
    pub(super) fn wanted(&self) -> Vec<PollFd<'_>> {
        let mut wanted = Vec::new();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.has_output);
        flags.set(PollFlags::OUT, !self.typed.is_empty());
        if !flags.is_empty() {
            wanted.push(PollFd::new(&self.terminal, flags));
        }
        if self.has_input && self.typed.is_empty() {
            wanted.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        wanted
    }

    /// Passes on what there is, without waiting for more.
    pub(super) fn pass_on(&mut self) -> io::Result<()> {
        self.pass_input()?;
        for _ in 0..FAIR_ROUNDS {
            if !self.pass_output()? {
                break;
            }
        }
        Ok(())
    }

    fn pass_input(&mut self) -> io::Result<()> {
        if self.typed.is_empty() && self.has_input && is_ready(stdin()) {
            let mut buffer = [0; CHUNK_BYTES];
            let length = match read(stdin(), &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                // The other side of our own terminal has hung up.
                Err(Errno::IO) => 0,
                other => other?,
            };
            self.has_input = length > 0;
            self.typed.extend(&buffer[..length]);
        }
        if !self.typed.is_empty() {
            match write(&self.terminal, &self.typed) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody is there to take it any more.
                Err(Errno::IO) => self.typed.clear(),
                other => drop(self.typed.drain(..other?)),
            }
        }
        Ok(())
    }

    /// Whether there may be more.
    fn pass_output(&mut self) -> io::Result<bool> {
        let mut buffer = [0; CHUNK_BYTES];
        let length = match read(&self.terminal, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // All of the container's ends are closed.
            Err(Errno::IO) => 0,
            other => other?,
        };
        self.has_output = length > 0;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            rest = &rest[rustix::io::retry_on_intr(|| write(stdout(), rest))?..];
        }
        Ok(self.has_output)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            tcsetattr(stdin(), OptionalActions::Now, before).ok();
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = rustix::time::Timespec::default();
    matches!(rustix::event::poll(&mut wanted, Some(&now)), Ok(1..))
}

/// Takes the outer end of a terminal from the socket that it comes over.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut name = [0; 64];
    let (_, terminal) = receive_descriptors(socket, &mut name)?;
    let terminal = terminal.into_iter().next();
    terminal.ok_or_else(|| io::Error::other("it did not come"))
}
