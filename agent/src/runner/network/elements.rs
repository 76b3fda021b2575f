//! Adds and deletes elements of the table's sets by netlink, in one atomic batch. Running `nft` instead would take longer than
//! the rest of a start's network setup.
//!
//! The encoding is that of Linux (include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h).

use std::{fmt, io, net::Ipv4Addr, net::SocketAddrV4};

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{
    AF_INET, AF_UNSPEC, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM,
};

use super::{
    addresses::{NodePort, Transport},
    links::hardware_address,
    netlink::{Netlink, Request, RequestError},
    services::SlotElement,
};

/// An element of one of the table's sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// Node port → process, in the map `ports` of TCP or `udp_ports`.
    Forward(NodePort, SocketAddrV4),
    /// Address that is accepted from its own hardware address, in the set `senders`.
    Sender(Ipv4Addr),
    /// Address that processes are blocked from, in the set `apis`.
    Api(SocketAddrV4),
    /// Machine whose connections to node ports are forwarded, in the set `machines`.
    Machine(Ipv4Addr),
    /// Worker whose node ports processes are blocked from, in the set `workers`.
    Worker(Ipv4Addr),
    /// Name server that processes may use, in the set `resolvers`.
    Resolver(Ipv4Addr),
    /// Process → address of a service that it needs, in the set `needs`.
    Need(Ipv4Addr, Ipv4Addr),
    /// Which process answers at a service's address, in the map `services`.
    Slot(SlotElement),
}

/// An element to add or to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) add: bool,
    pub(super) element: Element,
}

/// Why the batch was refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Applies the changes in the network namespace of this thread.
pub(super) fn change(table: &str, changes: &[Change]) -> Result<(), Error> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(Error::Socket)?;
    let begin = [batch_marker(
        NFNL_MSG_BATCH_BEGIN,
        "begin a batch of changes",
    )];
    let end = [batch_marker(NFNL_MSG_BATCH_END, "end a batch of changes")];
    let changes = changes.iter().map(|change| change.request(table));
    let batch: Vec<_> = begin.into_iter().chain(changes).chain(end).collect();
    netlink.execute(&batch)?;
    Ok(())
}

impl Change {
    /// One request for each element, so that an error names it.
    fn request(&self, table: &str) -> Request {
        let (kind, flags, what) = match self.add {
            true => (NFT_MSG_NEWSETELEM, NLM_F_CREATE, "add"),
            false => (NFT_MSG_DELSETELEM, 0, "delete"),
        };
        let (element, set) = (self.element, self.element.set());
        let what = format!("{what} the element {element} of {set} in the table {table}");
        let mut body = header(AF_INET, 0);
        body.extend(bytes(&[
            DefaultNla::new(NFTA_SET_ELEM_LIST_TABLE, text(table)),
            DefaultNla::new(NFTA_SET_ELEM_LIST_SET, text(set)),
            nested(NFTA_SET_ELEM_LIST_ELEMENTS, &[self.attributes()]),
        ]));
        Request::raw(subsystem() | kind as u16, flags, body, what)
    }

    fn attributes(&self) -> DefaultNla {
        let value = |kind, value| nested(kind, &[DefaultNla::new(NFTA_DATA_VALUE, value)]);
        let key = value(NFTA_SET_ELEM_KEY, self.element.key());
        // A deletion is identified by the key alone.
        let data = self.element.data().filter(|_| self.add);
        let data = data.map(|data| value(NFTA_SET_ELEM_DATA, data));
        let all: Vec<_> = [key].into_iter().chain(data).collect();
        nested(NFTA_LIST_ELEM, &all)
    }
}

impl Element {
    /// Name of its set.
    pub(super) fn set(&self) -> &'static str {
        match self {
            Self::Forward((Transport::Tcp, _), _) => "ports",
            Self::Forward((Transport::Udp, _), _) => "udp_ports",
            Self::Sender(_) => "senders",
            Self::Api(_) => "apis",
            Self::Machine(_) => "machines",
            Self::Worker(_) => "workers",
            Self::Resolver(_) => "resolvers",
            Self::Need(..) => "needs",
            Self::Slot(_) => "services",
        }
    }

    /// In network byte order; each part of a concatenation is padded to four bytes.
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Forward((_, port), _) => port.to_be_bytes().into(),
            Self::Sender(ip) => [&hardware_address(*ip)[..], &[0; 2], &ip.octets()].concat(),
            Self::Api(address) => socket(*address),
            Self::Machine(ip) | Self::Worker(ip) | Self::Resolver(ip) => ip.octets().into(),
            Self::Need(from, to) => [from.octets(), to.octets()].concat(),
            Self::Slot(slot) => slot_key(slot),
        }
    }

    fn data(&self) -> Option<Vec<u8>> {
        match self {
            Self::Forward(_, to) => Some(socket(*to)),
            Self::Slot(slot) => Some(socket(slot.to)),
            Self::Sender(_)
            | Self::Need(..)
            | Self::Api(_)
            | Self::Machine(_)
            | Self::Worker(_)
            | Self::Resolver(_) => None,
        }
    }
}

/// In the syntax of `nft`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward((_, port), to) => write!(f, "{port} : {} . {}", to.ip(), to.port()),
            Self::Sender(ip) => write!(f, "{} . {ip}", super::rules::hardware(*ip)),
            Self::Api(address) => write!(f, "{} . {}", address.ip(), address.port()),
            Self::Machine(ip) | Self::Worker(ip) | Self::Resolver(ip) => write!(f, "{ip}"),
            Self::Need(from, to) => write!(f, "{from} . {to}"),
            Self::Slot(SlotElement {
                number,
                address,
                transport,
                port,
                to,
            }) => {
                let to = format!("{} . {}", to.ip(), to.port());
                write!(f, "{number} . {address} . {transport} . {port} : {to}")
            }
        }
    }
}

const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

fn batch_marker(kind: i32, what: &str) -> Request {
    Request::marker(
        kind as u16,
        header(AF_UNSPEC, NFNL_SUBSYS_NFTABLES as u16),
        what,
    )
}

/// Length of `struct nfgenmsg`, which precedes the attributes of a message.
pub(super) const HEADER_BYTES: usize = 4;

/// `struct nfgenmsg`.
pub(super) fn header(family: i32, resource: u16) -> Vec<u8> {
    let version = 0;
    let [high, low] = resource.to_be_bytes();
    vec![family as u8, version, high, low]
}

pub(super) fn subsystem() -> u16 {
    (NFNL_SUBSYS_NFTABLES as u16) << 8
}

/// The number that is drawn is in the machine's byte order, as the kernel draws it.
fn slot_key(slot: &SlotElement) -> Vec<u8> {
    [
        &slot.number.to_ne_bytes()[..],
        &slot.address.octets(),
        &[slot.transport.protocol(), 0, 0, 0],
        &slot.port.to_be_bytes(),
        &[0; 2],
    ]
    .concat()
}

fn socket(address: SocketAddrV4) -> Vec<u8> {
    [
        &address.ip().octets()[..],
        &address.port().to_be_bytes(),
        &[0; 2],
    ]
    .concat()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// The value of the first attribute of this kind.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(attributes).flatten();
    all.find(|it| it.kind() == kind)
        .map(|it| it.value().to_vec())
}

pub(super) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, bytes(attributes))
}

pub(super) fn bytes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
