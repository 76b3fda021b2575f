//! Messages between the processes of a container start, over socket pairs: between the caller and the supervisor, and
//! between the starter and the container's process.

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

/// Maximum size of a message: leaves room for the longest path in an error.
const MESSAGE_LIMIT_BYTES: usize = 16 << 10;

/// Maximum number of descriptors in a message.
const DESCRIPTORS: usize = 2;

/// The caller's request to a supervisor; the lock of the state directory comes with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    /// The state directory with `launch.json`.
    #[serde(rename = "home")]
    pub(crate) state_dir: PathBuf,
}

/// The supervisor's reply to its caller. Also printed as one line by `exec-in --report`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The container's program has been executed. Pidfds of the supervisor and of the container's init process come
    /// with the message.
    Started {
        /// Pid of the container's init process.
        pid: i32,
    },
    /// The command of an `exec` has exited.
    Ended { code: i32 },
    /// The command of an `exec` exceeded its time limit and was killed.
    TimedOut,
    /// A step failed; everything was cleaned up.
    Failed(Failure),
}

/// A failed step and its reason.
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

/// Adds the name of the failed step to an error.
pub(crate) trait Step<T> {
    fn step(self, name: &str) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, name: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(name, &error))
    }
}

/// One end of a socket pair. Reading returns none once the other end is closed.
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

    /// Wraps a connected socket.
    pub(crate) fn over(connection: OwnedFd) -> Self {
        Self(connection)
    }

    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let text = &text[..text.len().min(MESSAGE_LIMIT_BYTES)];
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, text))?;
        Ok(())
    }

    /// The next message, or none if the other end is closed.
    pub(crate) fn receive<T: for<'a> Deserialize<'a>>(&self) -> io::Result<Option<T>> {
        // Reserved pages are only used as far as the message reaches.
        let mut buffer = Vec::with_capacity(MESSAGE_LIMIT_BYTES);
        let mut read =
            || rustix::io::retry_on_intr(|| rustix::io::read(&self.0, spare_capacity(&mut buffer)));
        let length = match read() {
            // The peer closed its end with unread data; its own last message is still queued behind the error.
            Err(rustix::io::Errno::CONNRESET) => read()?,
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&buffer)?))
    }

    /// Like [`Self::send`], with up to [`DESCRIPTORS`] descriptors.
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

    /// Receives a message of [`Self::send`] or [`Self::send_with`]; none if the other end is closed.
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

    /// Lets the other end continue.
    pub(crate) fn proceed(&self) -> io::Result<()> {
        socket::send(self.0.as_raw_fd(), b"1", MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the other end's [`Self::proceed`]. Fails if the other end has exited.
    pub(crate) fn wait_for_proceed(&self) -> io::Result<()> {
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

/// Sends descriptors along with bytes; returns how many bytes were sent.
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

/// Receives bytes, their number, and the descriptors that came with them.
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
mod tests;
