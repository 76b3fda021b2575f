//! Ends tracked connections whose path or endpoint is gone, by netlink: the next packet of each is then refused, or begins a
//! connection to another endpoint, which refuses it, so that the client connects again instead of hanging.
//!
//! The kernel goes through its table for each request and deletes what matches (Linux 5.8). The encoding is that of
//! include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use netlink_packet_core::{DefaultNla, NLM_F_ACK};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{AF_INET, EINVAL, ENOENT, NFNL_SUBSYS_CTNETLINK};

use super::{
    addresses::Transport,
    elements::{Error, bytes, nested},
    netlink::{Netlink, Request},
    services::{Answering, ServiceMap, ServiceRules},
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

/// Ends them, in the network namespace of this thread. Those that are gone already are no error.
pub(super) fn end(all: &[Ended]) -> Result<(), Error> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(Error::Socket)?;
    for one in all {
        match netlink.execute(&[one.request()]) {
            // A kernel without filters of deletions looks for one connection with these ends, and finds none.
            Err(error) if !error.is(&[ENOENT, EINVAL]) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

impl Ended {
    fn request(&self) -> Request {
        // The version says that the family counts.
        let mut body = vec![AF_INET as u8, NFNETLINK_V1, 0, 0];
        body.extend(bytes(&self.attributes()));
        let kind = (NFNL_SUBSYS_CTNETLINK as u16) << 8 | IPCTNL_MSG_CT_DELETE;
        Request::raw(
            kind,
            NLM_F_ACK,
            body,
            format!("end the connections {self:?}"),
        )
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
