//! The cost of one request through the balancer, beside HAProxy, nginx and no proxy at all. See README.md.

mod contender;
mod http;
mod instructions;
mod load;
mod memory;
mod origin;
mod process;
mod table;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use contender::Contender;
use load::{Load, Measured};
use origin::Origin;

/// Measures the balancer beside other proxies
#[derive(Debug, Parser)]
struct Arguments {
    /// The balancer's program, or NAME=PROGRAM for several of them; the one beside this program if none is given
    #[arg(long, value_name = "[NAME=]PROGRAM")]
    program: Vec<String>,
    /// Client connections
    #[arg(long, value_delimiter = ',', default_value = "16,64,256")]
    connections: Vec<usize>,
    /// What is exchanged: the length of an answer, or of a request's body (post); with short before it, requests have no header but Host
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100,16384,1048576,post65536"
    )]
    exchanges: Vec<String>,
    /// Rounds; in each, every contender has its turn
    #[arg(long, default_value = "3")]
    rounds: usize,
    /// Seconds of each turn
    #[arg(long, default_value = "2")]
    seconds: f64,
    /// Threads of each proxy
    #[arg(long, default_value = "1")]
    threads: usize,
    /// Idle connections for the measurement of memory; 0 leaves it out
    #[arg(long, default_value = "5000")]
    idle: usize,
    /// Count user instructions per request with valgrind instead, and fail if they have risen by 5 % over the recorded ones
    #[arg(long)]
    instructions: bool,
    /// Write the counted instructions down
    #[arg(long, requires = "instructions")]
    record: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let ours = programs(&arguments)?;
    let origin = Origin::start()?;
    if arguments.instructions {
        return instructions::check(&ours, &origin, arguments.record);
    }
    let contenders = Contender::start_all(&ours, &origin, arguments.threads)?;
    for exchange in &arguments.exchanges {
        for connections in &arguments.connections {
            let load = Load::new(exchange, *connections)?;
            let measured = interleaved(&contenders, &load, &arguments)?;
            table::print(&load, &contenders, &measured);
        }
    }
    if arguments.idle > 0 {
        memory::print(&contenders, arguments.idle)?;
    }
    Ok(())
}

/// The results of each contender, in their order.
fn interleaved(
    contenders: &[Contender],
    load: &Load,
    arguments: &Arguments,
) -> Result<Vec<Vec<Measured>>> {
    let turn = Duration::from_secs_f64(arguments.seconds);
    let mut measured: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=arguments.rounds {
        for (contender, results) in contenders.iter().zip(&mut measured) {
            let result = load.run_for(contender.address, turn, || contender.cpu_seconds())?;
            // The first round warms up.
            if round > 0 {
                results.push(result);
            }
        }
    }
    Ok(measured)
}

/// Names and paths of the balancer's programs.
fn programs(arguments: &Arguments) -> Result<Vec<(String, PathBuf)>> {
    if arguments.program.is_empty() {
        let own = std::env::current_exe()?;
        let beside = own.with_file_name("tucano_balancerd");
        anyhow::ensure!(
            beside.exists(),
            "there is no {}: build it (cargo build --release -p tucano_balancer), or name it with --program",
            beside.display()
        );
        return Ok(vec![("ours".to_owned(), beside)]);
    }
    let programs = arguments.program.iter().map(|text| {
        let (name, path) = text.split_once('=').unwrap_or(("ours", text));
        let path = std::fs::canonicalize(path).with_context(|| format!("no program {path}"))?;
        Ok((name.to_owned(), path))
    });
    programs.collect()
}
