//! Requests to the kernel by netlink: several in one message to it, which it carries out in their order before it takes the
//! next, so that none waits for the answer to another.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc::MSG_DONTWAIT;

/// A request, and what it is to do.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
    /// Nothing is answered to begin and end of a batch.
    is_mark: bool,
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

    /// Of bytes that are a message of this kind.
    pub(super) fn raw(kind: u16, flags: u16, body: Vec<u8>, what: impl Into<String>) -> Self {
        Self {
            kind,
            flags: NLM_F_REQUEST | flags,
            body,
            is_mark: false,
            what: what.into(),
        }
    }

    /// Begin or end of a batch.
    pub(super) fn mark(kind: u16, body: Vec<u8>, what: &str) -> Self {
        Self {
            is_mark: true,
            ..Self::raw(kind, 0, body, what)
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct Refused {
    /// What was to be done.
    what: String,
    /// Why it was not.
    #[source]
    source: io::Error,
}

impl Refused {
    /// Whether it is for one of these reasons.
    pub(super) fn is(&self, reasons: &[i32]) -> bool {
        let reason = self.source.raw_os_error();
        reason.is_some_and(|reason| reasons.contains(&reason))
    }
}

/// A netlink socket of the network namespace that it was opened in, whoever uses it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Of a protocol, such as `NETLINK_ROUTE`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Has these carried out; what is told in answer, without headers. Also after one that is refused the kernel goes on
    /// with the next, but in a batch; the first that was refused is the error.
    pub(super) fn carry_out(&mut self, requests: &[Request]) -> Result<Vec<Vec<u8>>, Refused> {
        let Some(last) = requests.iter().rposition(|request| !request.is_mark) else {
            return Ok(Vec::new());
        };
        let first = self.sequence.wrapping_add(1);
        let refused = |number: usize, source| Refused {
            what: requests[number].what.clone(),
            source,
        };
        let bytes = self.encode(requests, last);
        self.socket
            .send(&bytes, 0)
            .map_err(|error| refused(last, error))?;
        let mut answers = Answers::default();
        while !answers.ended {
            let mut bytes = Vec::with_capacity(ANSWER_BYTES);
            // The kernel has answered before `send` returns.
            match self.socket.recv(&mut bytes, MSG_DONTWAIT) {
                Ok(_) => answers.read(&bytes, first, last),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(refused(last, error)),
            }
        }
        if let Some((number, error)) = answers.refused {
            return Err(refused(number.min(last), error));
        }
        if !answers.ended {
            let silent = io::Error::other("the kernel does not answer");
            return Err(refused(last, silent));
        }
        Ok(answers.told)
    }

    /// Asks for an answer in any case to the last alone: to others there is one where they are refused.
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
            let acknowledged = if number == last { NLM_F_ACK } else { 0 };
            message.set_flags(request.flags | acknowledged);
            message.set_sequence_number(self.sequence);
            message.set_port_number(0);
            let body = begin + HEADER_BYTES;
            bytes[body..body + request.body.len()].copy_from_slice(&request.body);
        }
        bytes
    }
}

const HEADER_BYTES: usize = 16;
/// More than the kernel puts into one answer.
const ANSWER_BYTES: usize = 64 << 10;

/// What has been answered to requests so far.
#[derive(Debug, Default)]
struct Answers {
    /// That to the last of them is there.
    ended: bool,
    /// The first that was refused, by its place among them.
    refused: Option<(usize, io::Error)>,
    told: Vec<Vec<u8>>,
}

impl Answers {
    /// Of the requests whose first has this sequence number.
    fn read(&mut self, mut bytes: &[u8], first: u32, last: usize) {
        while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
            let number = message.sequence_number().wrapping_sub(first) as usize;
            let payload = message.payload();
            match message.message_type() {
                // To what was asked before.
                _ if number > last + 1 => {}
                NLMSG_ERROR => {
                    self.refuse(number, code(payload));
                    self.ended |= number == last;
                }
                NLMSG_DONE => {
                    self.refuse(number, code(payload));
                    self.ended = true;
                }
                _ => self.told.push(payload.to_vec()),
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

/// Zero where it was carried out, else the negative error.
fn code(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().copied();
    code.map_or(0, i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use nix::libc::{EEXIST, ENODEV, EPERM};

    use super::*;

    fn answer(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; (HEADER_BYTES + payload.len()).next_multiple_of(4)];
        let mut message = NetlinkBuffer::new(&mut bytes);
        message.set_length((HEADER_BYTES + payload.len()) as u32);
        message.set_message_type(kind);
        message.set_sequence_number(sequence);
        bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        bytes
    }

    fn refusal(sequence: u32, error: i32) -> Vec<u8> {
        answer(NLMSG_ERROR, sequence, &(-error).to_ne_bytes())
    }

    #[test]
    fn the_first_that_was_refused_counts_and_the_last_ends_it() {
        let mut answers = Answers::default();
        answers.read(&[refusal(7, EEXIST), refusal(6, EPERM)].concat(), 5, 3);
        assert!(!answers.ended);
        answers.read(&refusal(8, ENODEV), 5, 3);
        assert!(answers.ended);
        let (number, error) = answers.refused.unwrap();
        assert_eq!((number, error.raw_os_error()), (1, Some(EPERM)));
    }

    #[test]
    fn several_parts_are_told_in_their_order_until_the_end() {
        let mut answers = Answers::default();
        let parts = [answer(16, 1, b"one"), answer(16, 1, b"four")].concat();
        answers.read(&parts, 1, 0);
        assert_eq!(answers.told, [b"one".to_vec(), b"four".to_vec()]);
        answers.read(&answer(NLMSG_DONE, 1, &[0; 4]), 1, 0);
        assert!(answers.ended && answers.refused.is_none());
    }

    #[test]
    fn what_is_cut_off_or_no_message_at_all_ends_nothing() {
        let whole = refusal(1, EPERM);
        for length in 0..whole.len() {
            let mut answers = Answers::default();
            answers.read(&whole[..length], 1, 0);
            assert!(!answers.ended && answers.refused.is_none(), "{length}");
        }
    }
}
