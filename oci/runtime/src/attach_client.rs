//! Client of a supervisor's attach socket (`attach`): follows a container's output and sends signals to it.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::connect,
};

use crate::{
    attach::{Kind, NAME, Request},
    launch::Exit,
    listener::{socket, with_address},
    logs::CHUNK_BYTES,
    state_dir::StateDir,
    supervisor::{self, Error, Status},
};

/// How long a supervisor that has just reported a start may take to bind its socket.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Output of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To stdout.
    Stdout(Vec<u8>),
    /// To stderr.
    Stderr(Vec<u8>),
}

/// A connection that receives everything that a container writes.
#[derive(Debug)]
pub struct Attached(OwnedFd);

/// Attaches to the running container of a state directory. Blocks.
pub fn attach(state_dir: &Path) -> Result<Attached, Error> {
    let attached = Attached(connect_to(state_dir)?);
    attached.ask(&Request::Output)?;
    Ok(attached)
}

/// Sends a signal to the container's init process through its supervisor.
pub fn signal(state_dir: &Path, number: i32) -> Result<(), Error> {
    Attached(connect_to(state_dir)?).ask(&Request::Signal(number))
}

/// Waits for the supervisor of a container that has exited and returns the exit status; none if it is unknown.
pub fn exit(state_dir: &Path) -> Result<Option<Exit>, Error> {
    loop {
        match supervisor::find(state_dir)? {
            Status::Exited(exit) => return Ok(Some(exit)),
            Status::Running(running) => {
                let mut poll_fds = [PollFd::new(&running.supervisor, PollFlags::IN)];
                poll(&mut poll_fds, None).ok();
            }
            Status::Lost | Status::NeverStarted => return Ok(None),
        }
    }
}

impl Attached {
    /// The next output; none once the container has exited and its exit status is on disk. Reading too slowly is an
    /// error.
    pub fn next_output(&mut self) -> Result<Option<Output>, Error> {
        match self.receive()? {
            (Kind::Stdout, bytes) => Ok(Some(Output::Stdout(bytes))),
            (Kind::Stderr, bytes) => Ok(Some(Output::Stderr(bytes))),
            (Kind::End, _) => Ok(None),
            (Kind::Done | Kind::Refused, _) => Err(failed("unexpected reply")),
        }
    }

    fn ask(&self, request: &Request) -> Result<(), Error> {
        let text = serde_json::to_vec(request).map_err(failed)?;
        let sent = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &text));
        match (sent, self.receive()) {
            (_, Ok((Kind::Done, _))) => Ok(()),
            (_, Ok((Kind::Refused, why))) => Err(failed(String::from_utf8_lossy(&why))),
            (_, Ok((Kind::End, _))) => Err(Error::Ended),
            (Err(error), _) => Err(failed(error)),
            (_, Ok(_)) => Err(failed("unexpected reply")),
            (_, Err(error)) => Err(error),
        }
    }

    fn receive(&self) -> Result<(Kind, Vec<u8>), Error> {
        let mut packet = vec![0; 1 + CHUNK_BYTES];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut packet[..]));
        packet.truncate(length.map_err(failed)?);
        if packet.is_empty() {
            return Err(failed(
                "disconnected: the output was not read fast enough (the log files have it), or the supervisor has exited",
            ));
        }
        let kind = Kind::of(packet.remove(0)).ok_or_else(|| failed("an unknown kind of packet"))?;
        Ok((kind, packet))
    }
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::Step {
        step: "attaching".to_owned(),
        message: why.to_string(),
    }
}

fn connect_to(state_dir: &Path) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let socket = socket().map_err(failed)?;
        match with_address(state_dir, NAME, |address| Ok(connect(&socket, address)?)) {
            Ok(()) => return Ok(socket),
            Err(error) if !is_not_bound(&error) || Instant::now() > deadline => {
                return Err(failed(error));
            }
            Err(_) if !is_supervised(state_dir)? => return Err(Error::Ended),
            Err(_) => supervisor::pause(),
        }
    }
}

/// Whether the socket is not bound yet or no longer.
fn is_not_bound(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn is_supervised(state_dir: &Path) -> Result<bool, Error> {
    Ok(state_dir.is_dir() && StateDir(state_dir).lock()?.is_none())
}
