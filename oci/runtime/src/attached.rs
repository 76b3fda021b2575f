//! Through a container's supervisor: what it writes from now on, and signals for it. The other end is `attach`.

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
    home::Home,
    launch::Exit,
    listener::{socket, with_address},
    logs::CHUNK_BYTES,
    supervisor::{self, Error, Found},
};

/// How long a supervisor that has just reported its start may take to open its door.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To stdout.
    Stdout(Vec<u8>),
    /// To stderr.
    Stderr(Vec<u8>),
}

/// Sees all that a container writes.
#[derive(Debug)]
pub struct Attached(OwnedFd);

/// Attaches to the running container of this home directory. Blocking.
pub fn attach(home: &Path) -> Result<Attached, Error> {
    let attached = Attached(reach(home)?);
    attached.ask(&Request::Output)?;
    Ok(attached)
}

/// Has the supervisor send a signal to the container's first process.
pub fn signal(home: &Path, number: i32) -> Result<(), Error> {
    Attached(reach(home)?).ask(&Request::Signal(number))
}

/// How a container ended that has told so; none where that is not known. Waits for its supervisor, which is about to end.
pub fn exit(home: &Path) -> Result<Option<Exit>, Error> {
    loop {
        match supervisor::find(home)? {
            Found::Exited(exit) => return Ok(Some(exit)),
            Found::Running(running) => {
                let mut wanted = [PollFd::new(&running.supervisor, PollFlags::IN)];
                poll(&mut wanted, None).ok();
            }
            Found::Lost | Found::Nothing => return Ok(None),
        }
    }
}

impl Attached {
    /// What it writes next; none where it has ended, and how can be found. Whoever takes too long is let go, which is an error.
    pub fn next_output(&mut self) -> Result<Option<Output>, Error> {
        match self.receive()? {
            (Kind::Stdout, bytes) => Ok(Some(Output::Stdout(bytes))),
            (Kind::Stderr, bytes) => Ok(Some(Output::Stderr(bytes))),
            (Kind::End, _) => Ok(None),
            (Kind::Done | Kind::Refused, _) => Err(failed("it answers what was not asked")),
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
            (_, Ok(_)) => Err(failed("it answers what was not asked")),
            (_, Err(error)) => Err(error),
        }
    }

    fn receive(&self) -> Result<(Kind, Vec<u8>), Error> {
        let mut packet = vec![0; 1 + CHUNK_BYTES];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut packet[..]));
        packet.truncate(length.map_err(failed)?);
        if packet.is_empty() {
            return Err(failed(
                "its supervisor let go: output was not read fast enough (it is in the log files), or the supervisor has ended",
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

fn reach(home: &Path) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let socket = socket().map_err(failed)?;
        match with_address(home, NAME, |address| Ok(connect(&socket, address)?)) {
            Ok(()) => return Ok(socket),
            Err(error) if !is_closed(&error) || Instant::now() > deadline => {
                return Err(failed(error));
            }
            Err(_) if !is_supervised(home)? => return Err(Error::Ended),
            Err(_) => supervisor::pause(),
        }
    }
}

/// Not open yet, or no longer.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn is_supervised(home: &Path) -> Result<bool, Error> {
    Ok(home.is_dir() && Home(home).lock()?.is_none())
}
