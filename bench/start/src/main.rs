//! Measures how long it takes to start a container and what it costs to keep one: this runtime, other runtimes and a
//! floor, interleaved in one run, with ratios.
//!
//! - `place`: private namespaces and a directory for the benchmark;
//! - `bundle`: the bundle of every contender;
//! - `contender`: the contenders, and the result of a run;
//! - `filter`: compiled filters of the floor; `floor.c`, `true.c`: programs that are compiled here;
//! - `rate`: starts per second on all cores;
//! - `agent`: the agent's path, and the memory of its supervisors.

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
    contender::{Contender, Measurement},
    place::Workspace,
};

/// Measures the start of containers. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of runs of each contender.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Numbers of concurrent starts by the agent.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    processes: Vec<usize>,
    /// Directory for temporary files.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// Only contenders whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Path of tucano_oci; the one beside this program by default.
    #[arg(long)]
    runtime: Option<PathBuf>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// Commands with which this program executes itself.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Measures, in private namespaces.
    #[command(hide = true)]
    Measure,
    /// Unpacks one layer, as the agent's program does.
    #[command(hide = true)]
    UnpackLayer {
        /// The request.
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
    let place = Workspace::make(&arguments.work)?;
    let bundle = Bundle::make(&place)?;
    let wanted = |one: &Contender| {
        arguments.only.is_empty() || arguments.only.iter().any(|it| one.name.contains(&**it))
    };
    let contenders: Vec<_> = Contender::available(&bundle, &runtime)
        .into_iter()
        .filter(wanted)
        .collect();
    if !contenders.is_empty() {
        let runs = interleaved(&contenders, arguments.rounds)?;
        let rates = rate::of_all(&contenders)?;
        print(&contenders, &runs, &rates);
    }
    let floor = contenders.iter().find(|one| one.name == contender::FLOOR);
    if arguments.only.is_empty() || arguments.only.iter().any(|it| "agent".contains(&**it)) {
        agent::measure(&place, &runtime, &arguments.processes, floor)?;
    }
    Ok(())
}

/// Runs every contender in each round. The first round warms the page cache and is not counted.
fn interleaved(contenders: &[Contender], rounds: usize) -> Result<Vec<Vec<Measurement>>> {
    let mut runs = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            let measured = contender
                .run_once(&format!("bench-{round}"))
                .with_context(|| contender.name.clone())?;
            if round > 0 {
                runs.push(measured);
            }
        }
    }
    Ok(runs)
}

fn print(contenders: &[Contender], runs: &[Vec<Measurement>], rates: &[f64]) {
    let medians: Vec<Measurement> = runs.iter().map(|runs| Measurement::median(runs)).collect();
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
    for ((contender, measured), (runs, rate)) in
        contenders.iter().zip(&medians).zip(runs.iter().zip(rates))
    {
        let best = runs.iter().map(|one| one.wall).fold(f64::MAX, f64::min);
        println!(
            "{:<24} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>9} {:>9.0}",
            contender.name,
            measured.wall * 1e3,
            best * 1e3,
            measured.cpu * 1e3,
            ratio(measured.wall, floor),
            ratio(measured.wall, ours),
            rate
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_parsed() {
        let given = ["bench", "--rounds", "3", "--only", "runc,floor"];
        let arguments = Arguments::try_parse_from(given).unwrap();
        assert_eq!((arguments.rounds, arguments.only.len()), (3, 2));
        assert_eq!(arguments.processes, [1, 10, 100]);
    }
}
