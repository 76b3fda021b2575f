//! Puts back the rules that another program has removed, such as `nft flush ruleset` or a firewall that is reloaded.
//!
//! The kernel counts the changes of all tables: only when the count has changed are the table's rules counted.

use std::{fs, io};

use netlink_packet_core::{DefaultNla, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{AF_INET, AF_UNSPEC, NFT_MSG_GETGEN, NFT_MSG_GETRULE};

use super::{
    elements::{Error, HEADER_BYTES, attribute, bytes, header, subsystem, text},
    netlink::{Netlink, Request},
};

/// Whether packets that a bridge passes on within it are translated by the rules of the network layer: a neighbour that is
/// reached by its service's address then gets nothing, since ports of the bridge are isolated from each other.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// What was found at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The number of changes of all tables.
    pub(super) generation: u32,
    /// The rules of the table.
    pub(super) rules: usize,
}

/// Looks at a table in the network namespace of this thread; where nothing has changed since `last`, that is the answer.
pub(super) fn look(table: &str, last: Option<Seen>) -> Result<Seen, Error> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(Error::Socket)?;
    let generation = generation(&mut netlink)?;
    if let Some(last) = last.filter(|last| last.generation == generation) {
        return Ok(last);
    }
    let rules = count_rules(&mut netlink, table)?;
    Ok(Seen { generation, rules })
}

/// Has bridges pass packets on by themselves; whether they did not. Nothing is to be done on kernels that never do otherwise.
pub(super) fn release_bridges() -> io::Result<bool> {
    match fs::read_to_string(BRIDGE_CALLS) {
        Ok(value) if value.trim() == "0" => Ok(false),
        Ok(_) => fs::write(BRIDGE_CALLS, "0").map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn generation(netlink: &mut Netlink) -> Result<u32, Error> {
    let kind = subsystem() | NFT_MSG_GETGEN as u16;
    let what = "read the number of changes of the firewall";
    let replies = netlink.execute(&[Request::raw(kind, 0, header(AF_UNSPEC, 0), what)])?;
    let attributes = replies.first().and_then(|reply| reply.get(HEADER_BYTES..));
    let id = attribute(attributes.unwrap_or_default(), NFTA_GEN_ID);
    let id = id.and_then(|id| id.first_chunk().copied());
    Ok(id.map_or(0, u32::from_be_bytes))
}

fn count_rules(netlink: &mut Netlink, table: &str) -> Result<usize, Error> {
    let mut body = header(AF_INET, 0);
    body.extend(bytes(&[DefaultNla::new(NFTA_RULE_TABLE, text(table))]));
    let kind = subsystem() | NFT_MSG_GETRULE as u16;
    let what = format!("list the rules of the table {table}");
    let replies = netlink.execute(&[Request::raw(kind, NLM_F_DUMP, body, what)])?;
    let is_own = |reply: &&Vec<u8>| {
        let attributes = reply.get(HEADER_BYTES..).unwrap_or_default();
        attribute(attributes, NFTA_RULE_TABLE) == Some(text(table))
    };
    Ok(replies.iter().filter(is_own).count())
}

const NFTA_GEN_ID: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
