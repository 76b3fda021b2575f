//! A change of one endpoint: the agent learns it, and the rules are in force.

use anyhow::Result;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::time::ClockId;
use tucano_api::names::Names;

use crate::{
    names::{ENDPOINTS, service},
    node::Node,
    table::{self, Cost},
};

/// Changes between two looks at the clock.
const BATCH: usize = 10;
/// The kernel's group of those that hear of each change (`NFNLGRP_NFTABLES`).
const CHANGES_OF_NFTABLES: u32 = 7;

/// Changes an endpoint in turns, with few services and with many.
pub(crate) fn measure(few: &mut Node, many: &mut Node, rounds: usize) -> Result<()> {
    let mut rows = [
        (format!("{} services", few.services), Vec::new()),
        (format!("{} services", many.services), Vec::new()),
    ];
    for round in 0..=rounds {
        let costs = [batch(few, round)?, batch(many, round)?];
        if round > 0 {
            for ((_, row), cost) in rows.iter_mut().zip(costs) {
                row.push(cost);
            }
        }
    }
    table::print("one change", &rows);
    println!(
        "\n{:<28} {:>9} {:>9}",
        "what the kernel tells of it", "messages", "bytes"
    );
    for node in [few, many] {
        let (messages, bytes) = told(node)?;
        let name = format!("{} services", node.services);
        println!("{name:<28} {messages:>9} {bytes:>9}");
    }
    Ok(())
}

/// An endpoint goes and comes back, of one service after the other.
fn batch(node: &mut Node, round: usize) -> Result<Cost> {
    node.enter()?;
    let changes = (0..BATCH).map(|number| {
        let place = round * BATCH + number;
        change(node, place / 2, number % 2 == 0)
    });
    let changes: Vec<Names> = changes.collect::<Result<_>>()?;
    table::cost(BATCH, ClockId::ProcessCPUTime, || {
        changes.into_iter().try_for_each(|names| node.learn(names))
    })
}

/// An endpoint of a service goes, or it is back.
fn change(node: &Node, place: usize, goes: bool) -> Result<Names> {
    let number = place * 7919 % node.services;
    let without = goes.then_some(place % ENDPOINTS);
    Ok(Names {
        version: format!("{place} {goes}"),
        whole: false,
        services: vec![service(number, without)?],
        gone: Vec::new(),
    })
}

/// How much the kernel tells those that listen of the going of one endpoint.
fn told(node: &mut Node) -> Result<(usize, usize)> {
    node.enter()?;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(CHANGES_OF_NFTABLES)?;
    socket.set_non_blocking(true)?;
    let names = change(node, 1, true)?;
    node.learn(names)?;
    let (mut messages, mut bytes) = (0, 0);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = socket.recv(&mut &mut buffer[..], 0) {
        bytes += length;
        messages += messages_of(&buffer[..length]);
    }
    node.learn(change(node, 1, false)?)?;
    Ok((messages, bytes))
}

/// The messages of a datagram, each of which begins with its length.
fn messages_of(mut datagram: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = datagram.first_chunk::<4>() {
        let length = (u32::from_ne_bytes(*length) as usize).next_multiple_of(4);
        count += 1;
        datagram = datagram.get(length.max(4)..).unwrap_or_default();
    }
    count
}
