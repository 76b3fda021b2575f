//! Relays a container's terminal to this process's terminal, in the foreground: input, output and size.

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

/// Maximum number of bytes read from one side before the other has taken them.
const CHUNK_BYTES: usize = 16 << 10;

/// Maximum number of consecutive reads of output before input is served.
const FAIR_ROUNDS: usize = 64;

/// Gives a process without a `consoleSize` the size of this process's terminal. Setting it later would be a race with
/// the program.
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

/// Master of a container's terminal, and the original mode of this process's terminal.
pub(super) struct Relay {
    terminal: OwnedFd,
    /// Restored on drop; the terminal is in raw mode meanwhile.
    saved_mode: Option<Termios>,
    /// Input that the container has not taken yet.
    pending_input: Vec<u8>,
    has_input: bool,
    has_output: bool,
}

impl Relay {
    /// Receives the terminal's master from a socket.
    pub(super) fn begin(socket: OwnedFd) -> Result<Self, Failure> {
        let terminal = receive(&socket).step(STEP)?;
        let flags = fcntl_getfl(&terminal).step(STEP)? | OFlags::NONBLOCK;
        fcntl_setfl(&terminal, flags).step(STEP)?;
        let saved_mode = tcgetattr(stdin()).ok();
        if let Some(saved_mode) = &saved_mode {
            let mut raw = saved_mode.clone();
            raw.make_raw();
            // The container's terminal leaves carriage returns to this one.
            raw.output_modes = saved_mode.output_modes;
            tcsetattr(stdin(), OptionalActions::Now, &raw).step(STEP)?;
        }
        let relay = Self {
            terminal,
            saved_mode,
            pending_input: Vec::new(),
            has_input: true,
            has_output: true,
        };
        // The size may have changed since the terminal was created.
        relay.resize();
        Ok(relay)
    }

    /// Copies the size of this process's terminal to the container's.
    pub(super) fn resize(&self) {
        let size = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout()));
        if let Some(size) = size.ok().filter(|size| size.ws_col > 0) {
            tcsetwinsize(&self.terminal, size).ok();
        }
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut poll_fds = Vec::new();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.has_output);
        flags.set(PollFlags::OUT, !self.pending_input.is_empty());
        if !flags.is_empty() {
            poll_fds.push(PollFd::new(&self.terminal, flags));
        }
        if self.has_input && self.pending_input.is_empty() {
            poll_fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        poll_fds
    }

    /// Relays what is available without blocking.
    pub(super) fn relay(&mut self) -> io::Result<()> {
        self.relay_input()?;
        for _ in 0..FAIR_ROUNDS {
            if !self.relay_output()? {
                break;
            }
        }
        Ok(())
    }

    fn relay_input(&mut self) -> io::Result<()> {
        if self.pending_input.is_empty() && self.has_input && is_ready(stdin()) {
            let mut buffer = [0; CHUNK_BYTES];
            let length = match read(stdin(), &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                // This process's terminal has hung up.
                Err(Errno::IO) => 0,
                other => other?,
            };
            self.has_input = length > 0;
            self.pending_input.extend(&buffer[..length]);
        }
        if !self.pending_input.is_empty() {
            match write(&self.terminal, &self.pending_input) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The container has closed the terminal.
                Err(Errno::IO) => self.pending_input.clear(),
                other => drop(self.pending_input.drain(..other?)),
            }
        }
        Ok(())
    }

    /// Returns whether there may be more.
    fn relay_output(&mut self) -> io::Result<bool> {
        let mut buffer = [0; CHUNK_BYTES];
        let length = match read(&self.terminal, &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // The container has closed all descriptors of the terminal.
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
        if let Some(saved_mode) = &self.saved_mode {
            tcsetattr(stdin(), OptionalActions::Now, saved_mode).ok();
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut poll_fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = rustix::time::Timespec::default();
    matches!(rustix::event::poll(&mut poll_fds, Some(&now)), Ok(1..))
}

/// Receives a terminal's master from a socket.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut name = [0; 64];
    let (_, terminal) = receive_descriptors(socket, &mut name)?;
    let terminal = terminal.into_iter().next();
    terminal.ok_or_else(|| io::Error::other("no descriptor received"))
}
