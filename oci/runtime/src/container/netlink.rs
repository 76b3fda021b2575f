//! The few requests of rtnetlink(7) that network devices need. A socket speaks of the network namespace that it was made in.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};

/// Types of messages (linux/rtnetlink.h, linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

/// Flags of requests.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x600;

/// Attributes of a link.
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_FD: u16 = 28;

/// Attributes of an address.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;

/// Flags of an address (linux/if_addr.h).
const PERMANENT: u32 = 0x80;
/// No duplicate address detection, temporary addresses of this one, and no route for the prefix.
const KEPT_FLAGS: u32 = 0x02 | 0x100 | 0x200;

const HEADER_BYTES: usize = 16;
/// The kernel sends messages of at most 32 KiB.
const BUFFER_BYTES: usize = 32 << 10;

/// A socket of one network namespace.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Addresses by attribute: local, peer and broadcast.
    parts: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// A socket of this process's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        // The default protocol, 0, is ROUTE.
        Ok(Self(socket_with(
            AddressFamily::NETLINK,
            kind,
            flags,
            None,
        )?))
    }

    /// The index of the device with this name.
    pub(crate) fn index(&self, name: &str) -> io::Result<i32> {
        let mut request = Request::new(GET_LINK, REQUEST).link(0, 0);
        request.attribute(LINK_NAME, &terminated(name));
        let mut index = None;
        self.ask(&request, &mut |kind, body| {
            if kind == NEW_LINK {
                index = index.or_else(|| Some(i32::from_ne_bytes(bytes(body, 4)?)));
            }
        })?;
        index.ok_or_else(|| Errno::NODEV.into())
    }

    /// The addresses of a device that are to move with it: permanent ones of global scope.
    pub(crate) fn addresses(&self, index: i32) -> io::Result<Vec<Address>> {
        let request = Request::new(GET_ADDRESS, REQUEST | DUMP).bytes(&[0; 8]);
        let mut all = Vec::new();
        self.ask(&request, &mut |kind, body| {
            if kind == NEW_ADDRESS
                && let Some(address) = Address::parse(body, index)
            {
                all.push(address);
            }
        })?;
        Ok(all)
    }

    /// Moves a device to another network namespace, where it has this name.
    pub(crate) fn move_device(&self, index: i32, namespace: i32, name: &str) -> io::Result<()> {
        let mut request = Request::new(NEW_LINK, REQUEST | ACKNOWLEDGE).link(index, 0);
        request.attribute(LINK_NAMESPACE_FD, &namespace.to_ne_bytes());
        request.attribute(LINK_NAME, &terminated(name));
        self.ask(&request, &mut |_, _| {})
    }

    /// Gives a device an address.
    pub(crate) fn add_address(&self, index: i32, address: &Address) -> io::Result<()> {
        let head = [address.family, address.prefix, 0, 0];
        let mut request = Request::new(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE)
            .bytes(&head)
            .bytes(&index.to_ne_bytes());
        for (kind, part) in &address.parts {
            request.attribute(*kind, part);
        }
        request.attribute(ADDRESS_FLAGS, &(address.flags & KEPT_FLAGS).to_ne_bytes());
        self.ask(&request, &mut |_, _| {})
    }

    /// Sets a device up.
    pub(crate) fn set_up(&self, index: i32) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let request = Request::new(NEW_LINK, REQUEST | ACKNOWLEDGE).link(index, up);
        self.ask(&request, &mut |_, _| {})
    }

    /// Sends a request, and passes on each message of the answer with its type and body.
    fn ask(&self, request: &Request, take: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        send(&self.0, &request.finished(), SendFlags::empty())?;
        let is_list = request.flags & DUMP == DUMP;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (length, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            for (kind, body) in Messages(&buffer[..length]) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return outcome(body),
                    kind => take(kind, body),
                }
            }
            let waits = is_list || request.flags & ACKNOWLEDGE != 0;
            if !waits {
                return Ok(());
            }
        }
    }
}

fn outcome(body: &[u8]) -> io::Result<()> {
    match bytes(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Address {
    /// An address of the device, if it is to move.
    fn parse(body: &[u8], index: i32) -> Option<Self> {
        let [family, prefix, short_flags, scope] = bytes(body, 0)?;
        let owner = i32::from_ne_bytes(bytes(body, 4)?);
        let mut address = Self {
            family,
            prefix,
            flags: short_flags.into(),
            parts: Vec::new(),
        };
        for (kind, value) in Attributes(body.get(8..)?) {
            match kind {
                ADDRESS | LOCAL | BROADCAST => address.parts.push((kind, value.to_vec())),
                ADDRESS_FLAGS => address.flags = u32::from_ne_bytes(bytes(value, 0)?),
                _ => {}
            }
        }
        let is_global = scope == libc::RT_SCOPE_UNIVERSE;
        (owner == index && is_global && address.flags & PERMANENT != 0).then_some(address)
    }
}

/// A request under construction.
struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        Self {
            kind,
            flags,
            body: Vec::new(),
        }
    }

    /// Appends plain fields.
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// Appends a device's head, with flags to set.
    fn link(self, index: i32, flags: u32) -> Self {
        self.bytes(&[0; 4])
            .bytes(&index.to_ne_bytes())
            .bytes(&flags.to_ne_bytes())
            .bytes(&flags.to_ne_bytes())
    }

    /// Appends an attribute, padded to 4 bytes.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn finished(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&self.kind.to_ne_bytes());
        message.extend_from_slice(&self.flags.to_ne_bytes());
        // A sequence number and the kernel's port.
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&self.body);
        message
    }
}

/// The messages of a datagram: type and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(bytes(self.0, 0)?) as usize;
        let kind = u16::from_ne_bytes(bytes(self.0, 4)?);
        let body = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The attributes of a message: type and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(bytes(self.0, 0)?));
        let kind = u16::from_ne_bytes(bytes(self.0, 2)?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests;
