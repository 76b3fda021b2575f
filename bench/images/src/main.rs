//! How long it takes from an image's archive to its unpacked layers: ours, other tools', and plain `tar`, interleaved in
//! one run, each turn on a fresh file system, with the ratios between them.
//!
//! - `daemon`: other tools' daemons;
//! - `contender`: what is measured, each in a process of its own;
//! - `first`: until a process runs, with `--until-a-process-runs`;
//! - `image`: the images, made of this machine's own files;
//! - `place`: a fresh ext4 in a file, seen by this program and its children only.

mod contender;
mod daemon;
mod first;
mod image;
mod place;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use contender::{Contender, Taken};
use first::Runner;
use place::Place;
use tucano_oci_image::{Form, serve};
use tucano_oci_runtime::confinement::enter_directory;

/// Measures the way from an image's archive to unpacked layers. Needs root, umoci, tar and mkfs.ext4.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    step: Option<Step>,
    /// Images to measure: about 5, 100 or 1000 MB.
    #[arg(long, value_delimiter = ',', default_value = "5,100")]
    sizes: Vec<u32>,
    /// How often each contender has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the file systems' files are made, and removed again: room for the images, and for one turn.
    #[arg(long, default_value = "/var/tmp")]
    work: PathBuf,
    /// Measure until the first process runs from the image, instead of until it could.
    #[arg(long)]
    until_a_process_runs: bool,
    /// Speed of our upload then, as curl takes it (such as 20M); other tools read a file.
    #[arg(long)]
    upload_rate: Option<String>,
    /// Only contenders whose name has one of these in it.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// One turn of ours: imports an archive and unpacks all its layers.
    #[command(hide = true)]
    Ours {
        archive: PathBuf,
        into: PathBuf,
        /// Layers become images, which are mounted.
        #[arg(long)]
        erofs: bool,
    },
    /// Unpacks one layer, as the agent lets it be done.
    #[command(hide = true)]
    UnpackLayer { request: String },
    /// The measuring itself, in a mount namespace of its own.
    #[command(hide = true)]
    Measure,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.step {
        Some(Step::Ours {
            archive,
            into,
            erofs,
        }) => {
            let form = match erofs {
                true => Form::Erofs,
                false => Form::Directories,
            };
            contender::run_ours(archive, into, form)
        }
        Some(Step::UnpackLayer { request }) => unpack_confined(request),
        Some(Step::Measure) if arguments.until_a_process_runs => measure_first(&arguments),
        Some(Step::Measure) => measure(&arguments),
        None => place::in_own_namespace(arguments.until_a_process_runs),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "--rounds must be at least 1");
    let mut contenders = Contender::available();
    if !arguments.only.is_empty() {
        let is_asked_for = |it: &Contender| {
            arguments
                .only
                .iter()
                .any(|part| it.name().contains(part.as_str()))
        };
        contenders.retain(is_asked_for);
    }
    for size in &arguments.sizes {
        let images = Place::mount(&arguments.work, "images")?;
        let image = image::make(*size, images.path(), false)
            .with_context(|| format!("cannot make the image of {size} MB"))?;
        println!(
            "\n{size} MB: {} files, {} MB unpacked, {} layers, archive of {} MB; {} rounds",
            image.files,
            image.bytes >> 20,
            image.layers,
            image.archive_bytes >> 20,
            arguments.rounds
        );
        let mut turns: Vec<Vec<Taken>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (contender, turns) in contenders.iter().zip(&mut turns) {
                let place = Place::mount(&arguments.work, "turn")?;
                turns.push(contender.run(&image, place.path())?);
            }
        }
        print(&contenders, turns);
    }
    Ok(())
}

/// Confined as in the agent.
fn unpack_confined(request: &str) -> Result<()> {
    let confine = || enter_directory(Path::new("."), 1 << 30).map(drop);
    serve(request, confine).map_err(anyhow::Error::msg)
}

fn measure_first(arguments: &Arguments) -> Result<()> {
    place::run(std::process::Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let is_asked_for = |it: &Runner| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|part| it.name().contains(part.as_str()))
    };
    let runners = Runner::ALL.into_iter().filter_map(|(runner, tool)| {
        (contender::is_installed(tool) && is_asked_for(&runner)).then_some(runner)
    });
    let runners: Vec<Runner> = runners.collect();
    for size in &arguments.sizes {
        let images = Place::mount(&arguments.work, "images")?;
        let image = image::make(*size, images.path(), true)
            .with_context(|| format!("cannot make the image of {size} MB"))?;
        println!(
            "\n{size} MB: {} files, {} layers, archive of {} MB; {} rounds, until the first process runs",
            image.files,
            image.layers,
            image.archive_bytes >> 20,
            arguments.rounds
        );
        let mut turns: Vec<Vec<f64>> = runners.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (runner, turns) in runners.iter().zip(&mut turns) {
                let place = Place::mount(&arguments.work, "turn")?;
                match runner.run(&image, place.path(), arguments.upload_rate.as_deref()) {
                    Ok(wall) => turns.push(wall),
                    Err(error) => eprintln!("bench: a turn is left out: {error:#}"),
                }
            }
        }
        print_first(&runners, turns);
    }
    Ok(())
}

fn print_first(runners: &[Runner], turns: Vec<Vec<f64>>) {
    let medians: Vec<Option<f64>> = turns
        .into_iter()
        .map(|mut turns| {
            turns.sort_by(f64::total_cmp);
            turns.get(turns.len() / 2).copied()
        })
        .collect();
    println!("{:<26} {:>8} {:>9}", "", "wall s", "to ours");
    for (runner, wall) in runners.iter().zip(&medians) {
        let Some(wall) = wall else { continue };
        let ours = medians.first().copied().flatten();
        let ratio = ours.map_or("-".to_owned(), |ours| format!("{:.2}", wall / ours));
        println!("{:<26} {wall:>8.3} {ratio:>9}", runner.name());
    }
}

fn print(contenders: &[Contender], turns: Vec<Vec<Taken>>) {
    let medians: Vec<Taken> = turns.into_iter().map(median).collect();
    let of = |wanted: Contender| {
        let at = contenders.iter().position(|it| *it == wanted)?;
        Some(medians[at].wall)
    };
    println!(
        "{:<26} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "", "wall s", "cpu s", "peak MiB", "to ours", "to floor"
    );
    let ratio =
        |wall: f64, to: Option<f64>| to.map_or("-".to_owned(), |to| format!("{:.2}", wall / to));
    for (contender, taken) in contenders.iter().zip(&medians) {
        println!(
            "{:<26} {:>8.3} {:>8.3} {:>9.0} {:>9} {:>9}",
            contender.name(),
            taken.wall,
            taken.cpu,
            taken.peak_mib,
            ratio(taken.wall, of(Contender::Ours)),
            ratio(taken.wall, of(Contender::Floor)),
        );
    }
}

/// Each figure's own median.
fn median(turns: Vec<Taken>) -> Taken {
    let middle = |of: fn(&Taken) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Taken {
        wall: middle(|it| it.wall),
        cpu: middle(|it| it.cpu),
        peak_mib: middle(|it| it.peak_mib),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_own_median() {
        let taken = |wall, cpu, peak_mib| Taken {
            wall,
            cpu,
            peak_mib,
        };
        let turns = vec![
            taken(3.0, 1.0, 5.0),
            taken(1.0, 2.0, 9.0),
            taken(2.0, 9.0, 7.0),
        ];
        assert_eq!(median(turns), taken(2.0, 2.0, 7.0));
    }

    #[test]
    fn arguments_are_understood() {
        let arguments =
            Arguments::try_parse_from(["bench", "--sizes", "5,100", "--only", "ours,tar"]).unwrap();
        assert_eq!((arguments.sizes.len(), arguments.only.len()), (2, 2));
    }
}
