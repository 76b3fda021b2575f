//! How long it takes to start a container, and what it takes to keep one: this runtime, other runtimes and a floor, interleaved
//! in one run, with the ratios between them.
//!
//! - `place`: namespaces of the benchmark's own, and where its files lie;
//! - `bundle`: what every contender is given;
//! - `contender`: who runs it, and what a turn takes;
//! - `filter`: the floor's filters, ready to be installed; `floor.c`, `true.c`: programs that are compiled here;
//! - `rate`: starts per second on all cores;
//! - `agent`: the agent's own way, and the memory of what it keeps.

mod agent;
mod bundle;
mod contender;
mod filter;
mod place;
mod rate;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    bundle::Bundle,
    contender::{Contender, Taken},
    place::Place,
};

/// Measures how containers are started. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// Turns of each contender.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Starts at once by the agent.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    processes: Vec<usize>,
    /// Directory for all files.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// Only contenders whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// This runtime's program; the one built beside this one where absent.
    #[arg(long)]
    runtime: Option<PathBuf>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What this program starts itself for.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Once it is in namespaces of its own.
    #[command(hide = true)]
    Measure,
    /// As the agent, whose layers are unpacked by processes of the program that it is.
    #[command(hide = true)]
    UnpackLayer {
        /// What is to be made of it.
        request: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.inner {
        None => place::in_own_namespaces(),
        Some(Inner::Measure) => measure(&arguments),
        Some(Inner::UnpackLayer { request }) => {
            tucano_agent::confined::unpack_layer(request).map_err(anyhow::Error::msg)
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let runtime = match &arguments.runtime {
        Some(given) => given.clone(),
        None => std::env::current_exe()?.with_file_name("tucano_oci"),
    };
    let place = Place::make(&arguments.work)?;
    let bundle = Bundle::make(&place)?;
    let wanted = |one: &Contender| {
        arguments.only.is_empty() || arguments.only.iter().any(|it| one.name.contains(&**it))
    };
    let contenders: Vec<_> = Contender::available(&bundle, &runtime)
        .into_iter()
        .filter(wanted)
        .collect();
    if !contenders.is_empty() {
        let turns = interleaved(&contenders, arguments.rounds)?;
        let rates = rate::of_all(&contenders)?;
        print(&contenders, &turns, &rates);
    }
    let floor = contenders.iter().find(|one| one.name == contender::FLOOR);
    if arguments.only.is_empty() || arguments.only.iter().any(|it| "agent".contains(&**it)) {
        agent::measure(&place, &runtime, &arguments.processes, floor)?;
    }
    Ok(())
}

/// One turn of each, again and again; the first, before which nothing is in the page cache, does not count.
fn interleaved(contenders: &[Contender], rounds: usize) -> Result<Vec<Vec<Taken>>> {
    let mut turns = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, turns) in contenders.iter().zip(&mut turns) {
            let taken = contender
                .turn(&format!("bench-{round}"))
                .with_context(|| contender.name.clone())?;
            if round > 0 {
                turns.push(taken);
            }
        }
    }
    Ok(turns)
}

fn print(contenders: &[Contender], turns: &[Vec<Taken>], rates: &[f64]) {
    let medians: Vec<Taken> = turns.iter().map(|turns| Taken::median(turns)).collect();
    let at = |name: &str| contenders.iter().position(|one| one.name == name);
    let ratio = |wall: f64, to: Option<usize>| {
        to.map_or("-".to_owned(), |to| {
            format!("{:.2}", wall / medians[to].wall)
        })
    };
    let (floor, ours) = (at(contender::FLOOR), at(contender::OURS));
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "wall ms", "best ms", "cpu ms", "to floor", "to ours", "starts/s"
    );
    for ((contender, taken), (turns, rate)) in
        contenders.iter().zip(&medians).zip(turns.iter().zip(rates))
    {
        let best = turns.iter().map(|one| one.wall).fold(f64::MAX, f64::min);
        println!(
            "{:<24} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>9} {:>9.0}",
            contender.name,
            taken.wall * 1e3,
            best * 1e3,
            taken.cpu * 1e3,
            ratio(taken.wall, floor),
            ratio(taken.wall, ours),
            rate
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood() {
        let given = ["bench", "--rounds", "3", "--only", "runc,floor"];
        let arguments = Arguments::try_parse_from(given).unwrap();
        assert_eq!((arguments.rounds, arguments.only.len()), (3, 2));
        assert_eq!(arguments.processes, [1, 10, 100]);
    }
}
