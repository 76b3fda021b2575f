//! The supervisor's door: a socket in the home directory, which only root can reach. Whoever comes in sees what the container
//! writes from then on, or has it sent a signal. A packet each way:
//!
//! ```text
//! guest ── {"output":null} | {"signal":15} ──> supervisor
//! guest <── one byte that says what follows, then that ── supervisor
//! ```
//!
//! Nobody here can make the container wait: who does not read fast enough is let go, and the log files have it all. Containers of
//! the agent have neither stdin nor a terminal, so there is nothing else to ask for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, bind, listen, recv, send},
    process::{Signal, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    listener::{socket, with_address},
    logs::{CHUNK_BYTES, Source},
};

/// The socket's name.
pub(crate) const NAME: &str = "attach";

/// Most guests at a time.
pub(crate) const GUESTS: usize = 8;

/// Longest request.
const REQUEST_LIMIT_BYTES: usize = 128;

/// What a guest asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The container's output from now on.
    Output,
    /// A signal for its first process.
    Signal(i32),
}

/// What a packet for a guest begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The container has ended, and how is on disk.
    End = b'.' as isize,
    /// What was asked for is done.
    Done = b'+' as isize,
    /// It is not, and this is why.
    Refused = b'-' as isize,
    Stdout = b'1' as isize,
    Stderr = b'2' as isize,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [
            Self::End,
            Self::Done,
            Self::Refused,
            Self::Stdout,
            Self::Stderr,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

impl From<Source> for Kind {
    fn from(source: Source) -> Self {
        match source {
            Source::Stdout => Self::Stdout,
            Source::Stderr => Self::Stderr,
        }
    }
}

/// The door and who came in by it.
#[derive(Debug)]
pub(crate) struct Door {
    socket: OwnedFd,
    guests: Vec<Guest>,
}

#[derive(Debug)]
struct Guest {
    connection: OwnedFd,
    wants_output: bool,
}

impl Door {
    /// Opens it in this directory.
    pub(crate) fn open(home: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        with_address(home, NAME, |address| Ok(bind(&socket, address)?))?;
        listen(&socket, GUESTS as i32)?;
        Ok(Self {
            socket,
            guests: Vec::new(),
        })
    }

    /// What is to be polled, in the order that [`Self::serve`] takes.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let guests = self.guests.iter().map(|guest| guest.connection.as_fd());
        std::iter::once(self.socket.as_fd()).chain(guests)
    }

    /// Serves those that are ready.
    pub(crate) fn serve(&mut self, ready: &[bool], process: &OwnedFd) {
        let mut others = ready.iter().skip(1);
        self.guests
            .retain_mut(|guest| !others.next().unwrap_or(&false) || guest.serve(process));
        if ready.first() == Some(&true) {
            self.let_in();
        }
    }

    /// One too many is let go at once.
    fn let_in(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(connection) = accept_with(&self.socket, flags) {
            let mut guest = Guest {
                connection,
                wants_output: false,
            };
            if self.guests.len() < GUESTS {
                self.guests.push(guest);
            } else {
                let message = format!("{GUESTS} others are attached already");
                guest.tell(Kind::Refused, message.as_bytes());
            }
        }
    }

    /// Shows the container's output.
    pub(crate) fn show(&mut self, source: Source, chunk: &[u8]) {
        self.guests
            .retain_mut(|guest| !guest.wants_output || guest.tell(source.into(), chunk));
    }

    /// The container has ended, which all are told that have come so far. What a guest has asked is read: a connection that is
    /// closed with something unread loses what was said.
    pub(crate) fn close(mut self, process: &OwnedFd) {
        self.let_in();
        for guest in &mut self.guests {
            guest.serve(process);
            guest.tell(Kind::End, &[]);
        }
    }
}

impl Guest {
    /// False where it has gone, or has to go.
    fn serve(&mut self, process: &OwnedFd) -> bool {
        let mut buffer = [0; REQUEST_LIMIT_BYTES];
        let length = match recv(&self.connection, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(_) => return false,
            Ok((length, _)) => length,
        };
        match serde_json::from_slice(&buffer[..length]) {
            Ok(Request::Output) => {
                self.wants_output = true;
                self.tell(Kind::Done, &[])
            }
            Ok(Request::Signal(number)) => match signal(process, number) {
                Ok(()) => self.tell(Kind::Done, &[]),
                Err(error) => self.tell(Kind::Refused, error.to_string().as_bytes()),
            },
            Err(error) => self.tell(Kind::Refused, error.to_string().as_bytes()),
        }
    }

    /// False where it does not read fast enough, or has gone.
    fn tell(&mut self, kind: Kind, what: &[u8]) -> bool {
        let mut packet = [0; 1 + CHUNK_BYTES];
        let length = what.len().min(CHUNK_BYTES);
        packet[0] = kind as u8;
        packet[1..=length].copy_from_slice(&what[..length]);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(&self.connection, &packet[..=length], flags).is_ok()
    }
}

fn signal(process: &OwnedFd, number: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(number)
        .ok_or_else(|| io::Error::other(format!("{number} is no signal's number")))?;
    Ok(pidfd_send_signal(process, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::connect;

    fn visit(home: &Path) -> OwnedFd {
        let guest = socket().unwrap();
        with_address(home, NAME, |address| Ok(connect(&guest, address)?)).unwrap();
        guest
    }

    fn next(guest: &OwnedFd) -> Option<(Kind, Vec<u8>)> {
        let mut buffer = [0; 1 + CHUNK_BYTES];
        let length = rustix::io::read(guest, &mut buffer).unwrap();
        Some((
            Kind::of(*buffer[..length].first()?)?,
            buffer[1..length].to_vec(),
        ))
    }

    fn ask(guest: &OwnedFd, request: &Request) {
        rustix::io::write(guest, &serde_json::to_vec(request).unwrap()).unwrap();
    }

    fn serve_all(door: &mut Door) {
        let nobody = std::fs::File::open("/dev/null").unwrap().into();
        // Once to let them in, once to hear them.
        for _ in 0..2 {
            let count = door.descriptors().count();
            door.serve(&vec![true; count], &nobody);
        }
    }

    #[test]
    fn one_too_many_is_told_and_others_are_not_disturbed() {
        let home = tempfile::tempdir().unwrap();
        let mut door = Door::open(home.path()).unwrap();
        let guests: Vec<_> = (0..GUESTS).map(|_| visit(home.path())).collect();
        guests.iter().for_each(|guest| ask(guest, &Request::Output));
        serve_all(&mut door);
        let late = visit(home.path());
        let count = door.descriptors().count();
        let mut ready = vec![false; count];
        ready[0] = true;
        let nobody = std::fs::File::open("/dev/null").unwrap().into();
        door.serve(&ready, &nobody);
        assert_eq!(next(&late).unwrap().0, Kind::Refused);
        assert_eq!(next(&late), None);
        door.show(Source::Stderr, b"hi");
        door.close(&nobody);
        for guest in &guests {
            assert_eq!(next(guest), Some((Kind::Done, vec![])));
            assert_eq!(next(guest), Some((Kind::Stderr, b"hi".to_vec())));
            assert_eq!(next(guest), Some((Kind::End, vec![])));
            assert_eq!(next(guest), None);
        }
    }

    #[test]
    fn who_does_not_read_is_let_go_and_never_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let mut door = Door::open(home.path()).unwrap();
        let (slow, fast) = (visit(home.path()), visit(home.path()));
        ask(&slow, &Request::Output);
        ask(&fast, &Request::Output);
        serve_all(&mut door);
        assert_eq!(next(&fast), Some((Kind::Done, vec![])));
        // Far more than a socket holds.
        for _ in 0..10_000 {
            door.show(Source::Stdout, &[b'x'; CHUNK_BYTES]);
            assert_eq!(next(&fast).unwrap().1.len(), CHUNK_BYTES);
        }
        assert_eq!(door.guests.len(), 1);
        // Who came last is told of the end, too.
        let late = visit(home.path());
        ask(&late, &Request::Output);
        door.close(&std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(next(&late), Some((Kind::Done, vec![])));
        assert_eq!(next(&late), Some((Kind::End, vec![])));
        assert_eq!(next(&fast), Some((Kind::End, vec![])));
        let mut seen = Vec::new();
        while let Some((kind, _)) = next(&slow) {
            seen.push(kind);
        }
        assert!(seen.len() > 1 && !seen.contains(&Kind::End));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let mut door = Door::open(home.path()).unwrap();
        let guest = visit(home.path());
        rustix::io::write(&guest, b"{}").unwrap();
        serve_all(&mut door);
        assert_eq!(next(&guest).unwrap().0, Kind::Refused);
        ask(&guest, &Request::Signal(999));
        serve_all(&mut door);
        let (kind, why) = next(&guest).unwrap();
        assert_eq!(kind, Kind::Refused);
        assert!(String::from_utf8(why).unwrap().contains("999"));
    }
}
