//! What the processes of one start tell each other over socket pairs: the caller and the supervisor, the supervisor and the
//! container-to-be.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};
use rustix::{
    buffer::spare_capacity,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use serde::{Deserialize, Serialize};

use crate::container::user::User;

/// Largest message: room for a path of the longest kind in an error.
const MESSAGE_LIMIT_BYTES: usize = 16 << 10;

/// Most descriptors that come with one.
const DESCRIPTORS: usize = 2;

/// From the container-to-be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromContainer {
    /// The root file system is complete and not entered yet; it waits to be told to go on.
    Furnished,
    /// It makes no device any more, and sets up the rest.
    Equipped,
    /// All is set up; it waits to be told to go on.
    Ready(User),
    /// It waits to be started by someone else.
    Waiting,
    /// The number of a descriptor of its own that tells of seccomp notifications; it waits to be told to go on.
    Listener(i32),
    /// A step failed, and it ends.
    Failed(Failure),
}

/// The caller's word to a supervisor, which comes with the lock of the home directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where `launch.json` is.
    pub(crate) home: PathBuf,
}

/// What a supervisor answers its caller; one line of the command in a container, where that is asked to tell.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The container's program has been executed; descriptors of the supervisor and of the container's first process come with it.
    Started {
        /// The latter's.
        pid: i32,
    },
    /// The command given to `exec` has ended.
    Ended { code: i32 },
    /// The command given to `exec` did not end in time and was killed.
    TimedOut,
    /// A step failed; nothing remains.
    Failed(Failure),
}

/// A step that failed, and why, in words.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {message}")]
pub(crate) struct Failure {
    pub(crate) step: String,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(step: &str, why: &(impl std::fmt::Display + ?Sized)) -> Self {
        Self {
            step: step.to_owned(),
            message: why.to_string(),
        }
    }
}

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    fn step(self, name: &str) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, name: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(name, &error))
    }
}

/// One end of the socket pair. Closed at the other end, reading tells so.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// The same over a connection.
    pub(crate) fn over(connection: OwnedFd) -> Self {
        Self(connection)
    }

    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let text = &text[..text.len().min(MESSAGE_LIMIT_BYTES)];
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, text))?;
        Ok(())
    }

    /// The next message, or none where the other end is closed.
    pub(crate) fn receive<T: for<'a> Deserialize<'a>>(&self) -> io::Result<Option<T>> {
        // Memory is only taken for what comes.
        let mut buffer = Vec::with_capacity(MESSAGE_LIMIT_BYTES);
        let mut read =
            || rustix::io::retry_on_intr(|| rustix::io::read(&self.0, spare_capacity(&mut buffer)));
        let length = match read() {
            // It was closed before it had read all: what it said itself comes behind this.
            Err(rustix::io::Errno::CONNRESET) => read()?,
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&buffer)?))
    }

    /// The same, and descriptors with it: [`DESCRIPTORS`] at most.
    pub(crate) fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MESSAGE_LIMIT_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        send_descriptors(&self.0, &text, descriptors).map(|_| ())
    }

    /// What [`Self::send`] or [`Self::send_with`] sent, or none where the other end is closed.
    pub(crate) fn receive_with<T: for<'a> Deserialize<'a>>(
        &self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut text = vec![0; MESSAGE_LIMIT_BYTES];
        let mut receive = || receive_descriptors(&self.0, &mut text);
        let (length, descriptors) = match receive() {
            // As in [`Self::receive`].
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => receive()?,
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((
            serde_json::from_slice(&text[..length])?,
            descriptors,
        )))
    }

    /// Tells the other end to go on.
    pub(crate) fn go(&self) -> io::Result<()> {
        socket::send(self.0.as_raw_fd(), b"1", MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Waits to be told to go on. An error where the other end died.
    pub(crate) fn wait_to_go(&self) -> io::Result<()> {
        let mut buffer = [0; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut buffer))? {
            0 => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the supervisor died",
            )),
            _ => Ok(()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

/// Sends descriptors with these bytes, and tells how many of them were sent.
pub(crate) fn send_descriptors(
    socket: &impl AsFd,
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = socket::sendmsg::<UnixAddr>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(text)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(sent)
}

/// Takes bytes, how many is told, and the descriptors that came with them.
pub(crate) fn receive_descriptors(
    socket: &impl AsFd,
    text: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(text)];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((received.bytes, descriptors.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_with_their_message_and_are_the_same_files() {
        let (here, there) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let home = PathBuf::from("/var/lib/a\u{301}/home");
        here.send_with(&Order { home: home.clone() }, &[file.as_fd(), file.as_fd()])
            .unwrap();
        let (order, given): (Order, _) = there.receive_with().unwrap().unwrap();
        let [given, _] = given.as_slice() else {
            panic!("{given:?}");
        };
        assert_eq!(order.home, home);
        let inode = |fd: &dyn Fn() -> rustix::io::Result<rustix::fs::Stat>| fd().unwrap().st_ino;
        assert_eq!(
            inode(&|| rustix::fs::fstat(&file)),
            inode(&|| rustix::fs::fstat(given))
        );
        here.send(&Order { home }).unwrap();
        let (_, none): (Order, _) = there.receive_with().unwrap().unwrap();
        assert!(none.is_empty());
        drop(here);
        assert!(there.receive_with::<Order>().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_of_one_who_did_not_listen() {
        let (here, there) = Channel::pair().unwrap();
        here.go().unwrap();
        there.send(&FromContainer::Waiting).unwrap();
        drop(there);
        let message = here.receive::<FromContainer>().unwrap();
        assert!(matches!(message, Some(FromContainer::Waiting)));
        assert!(here.receive::<FromContainer>().unwrap().is_none());
    }

    #[test]
    fn messages_arrive_whole_and_the_end_is_told() {
        let (here, there) = Channel::pair().unwrap();
        here.send(&FromContainer::Failed(Failure::new("mounts", "no")))
            .unwrap();
        here.go().unwrap();
        let message = there.receive::<FromContainer>().unwrap();
        assert!(matches!(message, Some(FromContainer::Failed(why)) if why.step == "mounts"));
        there.wait_to_go().unwrap();
        drop(here);
        assert!(there.receive::<FromContainer>().unwrap().is_none());
        assert!(there.wait_to_go().is_err());
    }
}
