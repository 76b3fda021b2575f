//! The time of one connection from a process to a service. All of it is in one thread: the packets go through the client's network,
//! the worker's and the other machine's while the client's system call lasts.

use std::{
    net::{SocketAddrV4, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{net::sockopt::set_socket_linger, time::ClockId};

use crate::{
    names::{ENDPOINTS, address, target},
    node::{CLIENTS, Node},
    table::{self, Cost},
};

/// Connections between two looks at the clock.
const BATCH: usize = 500;

/// Connects in turns: past the services, which is the lower bound, to the only service, and to many.
pub(crate) fn measure(one: &mut Node, many: &mut Node, rounds: usize) -> Result<()> {
    let mut rows = [
        ("an endpoint itself".to_owned(), Vec::new()),
        ("1 service".to_owned(), Vec::new()),
        (format!("{} services", many.services), Vec::new()),
    ];
    // The first rounds warm the caches and are not counted.
    for round in 0..rounds + 2 {
        let costs = [
            batch(one, round, Destination::Endpoint)?,
            batch(one, round, Destination::Service)?,
            batch(many, round, Destination::Service)?,
        ];
        if round >= 2 {
            for ((_, row), cost) in rows.iter_mut().zip(costs) {
                row.push(cost);
            }
        }
    }
    table::print("one connection", &rows);
    table::print("with services", &rows[1..]);
    Ok(())
}

#[derive(Clone, Copy)]
enum Destination {
    Service,
    Endpoint,
}

/// Connections of one client to the services that it needs, in an order that no cache foresees.
fn batch(node: &Node, round: usize, destination: Destination) -> Result<Cost> {
    let client = round % CLIENTS;
    let services: Vec<usize> = Node::needed_by(client, node.services).collect();
    let to: Vec<SocketAddrV4> = (0..BATCH)
        .map(|number| {
            let service = services[(number * 7919 + round) % services.len()];
            match destination {
                Destination::Service => address(service),
                Destination::Endpoint => target(service, number % ENDPOINTS),
            }
        })
        .collect();
    node.clients[client].enter()?;
    let cost = table::cost(BATCH, ClockId::ThreadCPUTime, || {
        to.iter().try_for_each(|to| connect(*to))
    });
    node.accept_all();
    node.enter()?;
    cost
}

/// One connection, which ends by a reset: nothing of it waits.
fn connect(to: SocketAddrV4) -> Result<()> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}
