//! ICMP echo requests (RFC 792) to other nodes, on a raw socket, since Linux lets no group use the other kind by default.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto,
        socket_with, sockopt::set_socket_recv_buffer_size,
    },
};
use uuid::Uuid;

/// Type of an echo request.
const ECHO: u8 = 8;
/// Type of its answer.
const ECHO_REPLY: u8 = 0;
/// Type, code, checksum, identifier, sequence number.
const HEADER_BYTES: usize = 8;
const TOKEN_BYTES: usize = 16;
const MESSAGE_BYTES: usize = HEADER_BYTES + TOKEN_BYTES + size_of::<u32>();
/// An IPv4 header with all options, before the message.
const MAX_IP_HEADER_BYTES: usize = 60;
/// Room for the answers of some thousand nodes.
const BUFFER_BYTES: usize = 2 << 20;

/// Sends pings and reads their answers.
#[derive(Debug)]
pub(super) struct Pinger {
    socket: OwnedFd,
    /// Tells answers from those to others' pings; not to be guessed by a machine that wants to answer for another one.
    token: [u8; TOKEN_BYTES],
}

impl Pinger {
    /// A socket in the network namespace of this thread.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(ipproto::ICMP);
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol)?;
        set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
        Ok(Self {
            socket,
            token: Uuid::new_v4().into_bytes(),
        })
    }

    /// Sends a ping. `false` if nothing has left for want of room, or since this machine's firewall refuses it.
    pub(super) fn send(&self, to: Ipv4Addr, number: u32) -> bool {
        let message = self.message(ECHO, number);
        let to = SocketAddr::V4(SocketAddrV4::new(to, 0));
        let sent = sendto(&self.socket, &message, SendFlags::empty(), &to);
        // Without a route to it, the node is as silent as without an answer.
        !matches!(
            sent,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::PERM | Errno::ACCESS)
        )
    }

    /// An answer that has arrived.
    pub(super) fn receive(&self) -> Option<(Ipv4Addr, u32)> {
        let mut buffer = [0; MAX_IP_HEADER_BYTES + MESSAGE_BYTES];
        // The kernel passes all messages of the protocol on.
        loop {
            let received = recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty());
            let (_, bytes, from) = match received {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            let from = from.and_then(|from| SocketAddrV4::try_from(from).ok());
            let number = buffer.get(..bytes).and_then(|packet| self.number(packet));
            if let Some((from, number)) = from.zip(number) {
                return Some((*from.ip(), number));
            }
        }
    }

    /// The number of an answer to a ping of this socket.
    fn number(&self, packet: &[u8]) -> Option<u32> {
        let header_words = packet.first()? & 0x0f;
        let message = packet.get(usize::from(header_words) * 4..)?;
        let number = message.get(HEADER_BYTES + TOKEN_BYTES..)?;
        let number = u32::from_be_bytes(*number.first_chunk()?);
        (message == self.message(ECHO_REPLY, number)).then_some(number)
    }

    fn message(&self, kind: u8, number: u32) -> [u8; MESSAGE_BYTES] {
        let mut message = [0; MESSAGE_BYTES];
        message[0] = kind;
        // One identifier for all: the kernel tracks pings to a node as one connection.
        message[4..6].copy_from_slice(&self.token[..2]);
        message[6..8].copy_from_slice(&number.to_be_bytes()[2..]);
        message[HEADER_BYTES..][..TOKEN_BYTES].copy_from_slice(&self.token);
        message[HEADER_BYTES + TOKEN_BYTES..].copy_from_slice(&number.to_be_bytes());
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let (words, _) = message.as_chunks();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(folded + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_others_and_damaged_ones_are_none() {
        let pinger = Pinger {
            socket: rustix::pipe::pipe().unwrap().0,
            token: [7; TOKEN_BYTES],
        };
        let packet = |message: &[u8]| {
            let mut packet = vec![0x45; 20];
            packet.extend_from_slice(message);
            packet
        };
        let reply = pinger.message(ECHO_REPLY, 77_000);
        assert_eq!(pinger.number(&packet(&reply)), Some(77_000));
        // With options in the IPv4 header.
        let options = [&[0x46; 24][..], &reply].concat();
        assert_eq!(pinger.number(&options), Some(77_000));

        assert_eq!(pinger.number(&packet(&pinger.message(ECHO, 77_000))), None);
        for at in 0..reply.len() {
            let mut damaged = reply;
            damaged[at] ^= 1;
            assert_eq!(pinger.number(&packet(&damaged)), None, "byte {at}");
            assert_eq!(pinger.number(&packet(&reply[..at])), None);
        }
        assert_eq!(pinger.number(&[]), None);
    }

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let pinger = Pinger {
            socket: rustix::pipe::pipe().unwrap().0,
            token: [0xff; TOKEN_BYTES],
        };
        for number in [0, 1, 0xffff, u32::MAX] {
            assert_eq!(checksum(&pinger.message(ECHO, number)), 0);
        }
    }
}
