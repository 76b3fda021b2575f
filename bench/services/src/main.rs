//! Measures what services cost that are reached by their addresses: a connection, with one service and with very many, and a
//! change of one endpoint. The rules are the agent's own, in network namespaces of the benchmark; interleaved, with ratios.
//!
//! - `namespace`: network namespaces;
//! - `names`: services with their endpoints, as the controller tells them;
//! - `node`: a worker whose agent knows so many services, and another machine that answers for all endpoints;
//! - `connect`: connections; `change`: changes of an endpoint;
//! - `table`: medians and ratios.

mod change;
mod connect;
mod names;
mod namespace;
mod node;
mod table;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::node::Node;

/// Measures connections to services and changes of their endpoints. Needs root, `ip` and `nft`.
#[derive(Debug, Parser)]
struct Arguments {
    /// The many services, each of 5 endpoints.
    #[arg(long, default_value_t = 2000)]
    services: usize,
    /// The few services that changes are compared with.
    #[arg(long, default_value_t = 10)]
    few: usize,
    /// Rounds, of 500 connections and 10 changes each.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can make network namespaces: run as root"
    );
    let mut one = Node::start(1)?;
    let mut few = Node::start(arguments.few)?;
    let mut many = Node::start(arguments.services)?;
    connect::measure(&mut one, &mut many, arguments.rounds)?;
    change::measure(&mut few, &mut many, arguments.rounds)
}
