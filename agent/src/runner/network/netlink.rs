//! Netlink requests. Several are sent in one message, which the kernel processes in order, so that none waits for the reply to
//! another.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc::MSG_DONTWAIT;

/// A request and its description for errors.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
    /// Whether it marks the begin or end of a batch, which the kernel does not acknowledge.
    is_marker: bool,
    what: String,
}

impl Request {
    pub(super) fn new(
        message: &impl NetlinkSerializable,
        flags: u16,
        what: impl Into<String>,
    ) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Self::raw(message.message_type(), flags, body, what)
    }

    /// A request with an encoded body.
    pub(super) fn raw(kind: u16, flags: u16, body: Vec<u8>, what: impl Into<String>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | flags,
            body,
            is_marker: false,
            what: what.into(),
        }
    }

    /// The begin or end of a batch.
    pub(super) fn marker(kind: u16, body: Vec<u8>, what: &str) -> Self {
        Self {
            is_marker: true,
            ..Self::raw(kind, 0, body, what)
        }
    }
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct RequestError {
    /// Description of the request.
    what: String,
    /// The cause.
    #[source]
    source: io::Error,
}

impl RequestError {
    /// Whether the error is one of these codes.
    pub(super) fn is(&self, codes: &[i32]) -> bool {
        let code = self.source.raw_os_error();
        code.is_some_and(|code| codes.contains(&code))
    }
}

/// A netlink socket. It stays in the network namespace that it was opened in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket for a protocol, such as `NETLINK_ROUTE`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Executes the requests and returns the payloads of the replies. Outside of a batch the kernel continues after a refused
    /// request; the first refused one is the error.
    pub(super) fn execute(&mut self, requests: &[Request]) -> Result<Vec<Vec<u8>>, RequestError> {
        let Some(last) = requests.iter().rposition(|request| !request.is_marker) else {
            return Ok(Vec::new());
        };
        let first = self.sequence.wrapping_add(1);
        let error = |number: usize, source| RequestError {
            what: requests[number].what.clone(),
            source,
        };
        let bytes = self.encode(requests, last);
        self.socket
            .send(&bytes, 0)
            .map_err(|source| error(last, source))?;
        let mut replies = Replies::default();
        while !replies.ended {
            let mut bytes = Vec::with_capacity(REPLY_BYTES);
            // The kernel has queued its replies when `send` returns.
            match self.socket.recv(&mut bytes, MSG_DONTWAIT) {
                Ok(_) => replies.read(&bytes, first, last),
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => break,
                Err(source) => return Err(error(last, source)),
            }
        }
        if let Some((number, source)) = replies.refused {
            return Err(error(number.min(last), source));
        }
        if !replies.ended {
            let source = io::Error::other("the kernel did not reply");
            return Err(error(last, source));
        }
        Ok(replies.payloads)
    }

    /// Requests an acknowledgement of the last request only: errors are always reported.
    fn encode(&mut self, requests: &[Request], last: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let begin = bytes.len();
            let length = HEADER_BYTES + request.body.len();
            bytes.resize(begin + length.next_multiple_of(4), 0);
            let mut message = NetlinkBuffer::new(&mut bytes[begin..]);
            message.set_length(u32::try_from(length).unwrap_or(u32::MAX));
            message.set_message_type(request.kind);
            let ack = if number == last { NLM_F_ACK } else { 0 };
            message.set_flags(request.flags | ack);
            message.set_sequence_number(self.sequence);
            message.set_port_number(0);
            let body = begin + HEADER_BYTES;
            bytes[body..body + request.body.len()].copy_from_slice(&request.body);
        }
        bytes
    }
}

const HEADER_BYTES: usize = 16;
/// Larger than any message of the kernel.
const REPLY_BYTES: usize = 64 << 10;

/// The replies received so far.
#[derive(Debug, Default)]
struct Replies {
    /// Whether the last request was answered.
    ended: bool,
    /// The first refused request, by its index.
    refused: Option<(usize, io::Error)>,
    payloads: Vec<Vec<u8>>,
}

impl Replies {
    /// Reads replies to requests whose sequence numbers begin with `first`.
    fn read(&mut self, mut bytes: &[u8], first: u32, last: usize) {
        while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
            let number = message.sequence_number().wrapping_sub(first) as usize;
            let payload = message.payload();
            match message.message_type() {
                // A reply to an earlier request.
                _ if number > last + 1 => {}
                NLMSG_ERROR => {
                    self.refuse(number, code(payload));
                    self.ended |= number == last;
                }
                NLMSG_DONE => {
                    self.refuse(number, code(payload));
                    self.ended = true;
                }
                _ => self.payloads.push(payload.to_vec()),
            }
            let length = (message.length() as usize).next_multiple_of(4);
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }

    fn refuse(&mut self, number: usize, code: i32) {
        let earlier = self
            .refused
            .as_ref()
            .map_or(usize::MAX, |(first, _)| *first);
        if code != 0 && number < earlier {
            let error = io::Error::from_raw_os_error(code.saturating_neg());
            self.refused = Some((number, error));
        }
    }
}

/// Zero for success, else a negative error code.
fn code(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().copied();
    code.map_or(0, i32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
