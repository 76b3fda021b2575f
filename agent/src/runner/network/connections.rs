//! Ends tracked connections whose path or endpoint is gone, by netlink: the next packet of each is then refused, or begins a
//! connection to another endpoint, which refuses it, so that the client connects again instead of hanging. Those that were
//! found are returned, since a client that only waits sends no packet: [`super::sockets`] ends its socket.
//!
//! The kernel goes through its table for each request and deletes what matches (Linux 5.8). The encoding is that of
//! include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{AF_INET, EINVAL, ENOENT, NFNL_SUBSYS_CTNETLINK};

use super::{
    addresses::Transport,
    elements::{Error, HEADER_BYTES, attribute, bytes, nested},
    netlink::{Netlink, Request},
    services::{Answering, ServiceMap, ServiceRules},
    sockets::Connection,
};

/// Connections to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    /// All of a process to a service's address.
    Path(Ipv4Addr, Ipv4Addr),
    /// All to a port of a service's address that an endpoint answers.
    Endpoint(Transport, SocketAddrV4, SocketAddrV4),
}

/// The connections whose path or endpoint is in `before` only.
pub(super) fn ended(before: &ServiceRules, after: &ServiceRules) -> Vec<Ended> {
    let (_, paths) = after.needs_beside(before);
    let paths = paths.into_iter().map(|(from, to)| Ended::Path(from, to));
    let (new, old) = after.beside(before);
    let answering = |maps: Vec<&ServiceMap>| -> BTreeSet<Answering> {
        maps.iter()
            .flat_map(|map| map.answering.iter().copied())
            .collect()
    };
    let (new, old) = (answering(new), answering(old));
    let endpoints = old.difference(&new);
    let endpoints = endpoints.map(|(transport, at, to)| Ended::Endpoint(*transport, *at, *to));
    paths.chain(endpoints).collect()
}

/// Ends them, in the network namespace of this thread. Those that are gone already are no error. Returns the TCP connections
/// among them.
pub(super) fn end(all: &[Ended]) -> Result<Vec<Connection>, Error> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(Error::Socket)?;
    let mut found = Vec::new();
    for one in all {
        // The second replaces what the first has found: no new connection takes this way any more.
        for request in [one.list(), one.delete()] {
            match netlink.execute(&[request]) {
                Ok(replies) => found.extend(replies.iter().filter_map(|it| one.connection(it))),
                // A kernel without such filters looks for one connection with these ends, and finds none.
                Err(error) if error.is(&[ENOENT, EINVAL]) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}

impl Ended {
    fn list(&self) -> Request {
        let what = format!("list the connections {self:?}");
        self.request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, what)
    }

    fn delete(&self) -> Request {
        let what = format!("end the connections {self:?}");
        self.request(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, what)
    }

    fn request(&self, message: u16, flags: u16, what: String) -> Request {
        // The version says that the family counts.
        let mut body = vec![AF_INET as u8, NFNETLINK_V1, 0, 0];
        body.extend(bytes(&self.attributes()));
        let kind = (NFNL_SUBSYS_CTNETLINK as u16) << 8 | message;
        Request::raw(kind, flags, body, what)
    }

    /// The TCP connection of a listed entry. A kernel that does not know filters lists others, too.
    fn connection(&self, entry: &[u8]) -> Option<Connection> {
        let attributes = entry.get(HEADER_BYTES..)?;
        let original = ends(&attribute(attributes, CTA_TUPLE_ORIG)?)?;
        let reply = ends(&attribute(attributes, CTA_TUPLE_REPLY)?)?;
        let is_meant = match self {
            Self::Path(from, to) => (original.from.ip(), original.to.ip()) == (from, to),
            Self::Endpoint(_, at, to) => (original.to, reply.from) == (*at, *to),
        };
        is_meant.then_some(original)
    }

    fn attributes(&self) -> Vec<DefaultNla> {
        match self {
            Self::Path(from, to) => vec![
                nested(
                    CTA_TUPLE_ORIG,
                    &[nested(
                        CTA_TUPLE_IP,
                        &[ip(CTA_IP_V4_SRC, *from), ip(CTA_IP_V4_DST, *to)],
                    )],
                ),
                filter(FILTER_IP_SRC | FILTER_IP_DST, 0),
            ],
            Self::Endpoint(transport, at, to) => vec![
                nested(
                    CTA_TUPLE_ORIG,
                    &[
                        nested(CTA_TUPLE_IP, &[ip(CTA_IP_V4_DST, *at.ip())]),
                        protocol(*transport, CTA_PROTO_DST_PORT, at.port()),
                    ],
                ),
                nested(
                    CTA_TUPLE_REPLY,
                    &[
                        nested(CTA_TUPLE_IP, &[ip(CTA_IP_V4_SRC, *to.ip())]),
                        protocol(*transport, CTA_PROTO_SRC_PORT, to.port()),
                    ],
                ),
                filter(
                    FILTER_IP_DST | FILTER_PROTOCOL | FILTER_DST_PORT,
                    FILTER_IP_SRC | FILTER_PROTOCOL | FILTER_SRC_PORT,
                ),
            ],
        }
    }
}

/// The ends of a direction of a TCP connection.
fn ends(tuple: &[u8]) -> Option<Connection> {
    let (ips, ports) = (
        attribute(tuple, CTA_TUPLE_IP)?,
        attribute(tuple, CTA_TUPLE_PROTO)?,
    );
    if attribute(&ports, CTA_PROTO_NUM)? != [Transport::Tcp.protocol()] {
        return None;
    }
    let end = |ip, port| {
        let ip: [u8; 4] = *attribute(&ips, ip)?.first_chunk()?;
        let port = u16::from_be_bytes(*attribute(&ports, port)?.first_chunk()?);
        Some(SocketAddrV4::new(ip.into(), port))
    };
    Some(Connection {
        from: end(CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
        to: end(CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
    })
}

fn ip(kind: u16, ip: Ipv4Addr) -> DefaultNla {
    DefaultNla::new(kind, ip.octets().to_vec())
}

fn protocol(transport: Transport, port_kind: u16, port: u16) -> DefaultNla {
    nested(
        CTA_TUPLE_PROTO,
        &[
            DefaultNla::new(CTA_PROTO_NUM, vec![transport.protocol()]),
            DefaultNla::new(port_kind, port.to_be_bytes().to_vec()),
        ],
    )
}

/// Which parts of both directions have to match.
fn filter(original: u32, reply: u32) -> DefaultNla {
    nested(
        CTA_FILTER,
        &[
            DefaultNla::new(CTA_FILTER_ORIG_FLAGS, original.to_ne_bytes().to_vec()),
            DefaultNla::new(CTA_FILTER_REPLY_FLAGS, reply.to_ne_bytes().to_vec()),
        ],
    )
}

const NFNETLINK_V1: u8 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Bits of a filter (net/netfilter/nf_conntrack_netlink.c).
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_IP_DST: u32 = 1 << 1;
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_SRC_PORT: u32 = 1 << 4;
const FILTER_DST_PORT: u32 = 1 << 5;

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, 2), 40_000);
    const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(100, 80, 0, 1), 5432);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 20_000);

    fn tuple(kind: u16, from: SocketAddrV4, to: SocketAddrV4, transport: Transport) -> DefaultNla {
        let ips = [ip(CTA_IP_V4_SRC, *from.ip()), ip(CTA_IP_V4_DST, *to.ip())];
        let port = |kind, port: u16| DefaultNla::new(kind, port.to_be_bytes().to_vec());
        let ports = [
            DefaultNla::new(CTA_PROTO_NUM, vec![transport.protocol()]),
            port(CTA_PROTO_SRC_PORT, from.port()),
            port(CTA_PROTO_DST_PORT, to.port()),
        ];
        let parts = [nested(CTA_TUPLE_IP, &ips), nested(CTA_TUPLE_PROTO, &ports)];
        nested(kind, &parts)
    }

    fn entry(transport: Transport) -> Vec<u8> {
        let mut entry = vec![AF_INET as u8, NFNETLINK_V1, 0, 0];
        entry.extend(bytes(&[
            tuple(CTA_TUPLE_ORIG, FROM, AT, transport),
            tuple(CTA_TUPLE_REPLY, TO, FROM, transport),
        ]));
        entry
    }

    #[test]
    fn connections_are_those_of_the_path_or_endpoint() {
        let found = Some(Connection { from: FROM, to: AT });
        let entry = entry(Transport::Tcp);
        let other = SocketAddrV4::new(*TO.ip(), 20_001);
        for (ended, expected) in [
            (Ended::Path(*FROM.ip(), *AT.ip()), found),
            (Ended::Path(*FROM.ip(), *TO.ip()), None),
            (Ended::Endpoint(Transport::Tcp, AT, TO), found),
            (Ended::Endpoint(Transport::Tcp, AT, other), None),
        ] {
            assert_eq!(ended.connection(&entry), expected, "{ended:?}");
        }
    }

    #[test]
    fn datagrams_and_cut_entries_are_no_connections() {
        let path = Ended::Path(*FROM.ip(), *AT.ip());
        assert_eq!(path.connection(&entry(Transport::Udp)), None);
        let entry = entry(Transport::Tcp);
        for length in 0..entry.len() {
            assert_eq!(path.connection(&entry[..length]), None, "{length}");
        }
    }
}
