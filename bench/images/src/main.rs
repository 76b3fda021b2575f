//! Measures the time from an image's archive to its unpacked layers: this project, other tools, and plain `tar`,
//! interleaved in one run, each on a fresh file system, with ratios.
//!
//! - `daemon`: daemons of other tools;
//! - `contender`: what is measured, each in a process of its own;
//! - `first`: until a process runs, with `--until-a-process-runs`;
//! - `image`: images result of files of this machine;
//! - `place`: a fresh ext4 in a file, in a private mount namespace.

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

use contender::{Contender, Measurement};
use first::Runner;
use place::Workspace;
use tucano_oci_image::{Form, serve};
use tucano_oci_runtime::confinement::enter_directory;

/// Measures the kind from an image's archive to unpacked layers. Needs root, umoci, tar and mkfs.ext4.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    step: Option<Step>,
    /// Sizes of the images: about 5, 100 or 1000 MB.
    #[arg(long, value_delimiter = ',', default_value = "5,100")]
    sizes: Vec<u32>,
    /// Number of runs of each contender.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Directory for temporary file systems. Needs room for the images and one run.
    #[arg(long, default_value = "/var/tmp")]
    work: PathBuf,
    /// Measure until the first process runs from the image.
    #[arg(long)]
    until_a_process_runs: bool,
    /// Upload rate of the deploy, as for curl (such as 20M). Other tools read a file.
    #[arg(long)]
    upload_rate: Option<String>,
    /// Only contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Imports an archive and unpacks its layers once.
    #[command(hide = true)]
    Ours {
        archive: PathBuf,
        into: PathBuf,
        /// Make layers EROFS images and mount them.
        #[arg(long)]
        erofs: bool,
    },
    /// Unpacks one layer, as the agent does.
    #[command(hide = true)]
    UnpackLayer { request: String },
    /// Measures, in a private mount namespace.
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
        let images = Workspace::mount(&arguments.work, "images")?;
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
        let mut runs: Vec<Vec<Measurement>> = contenders.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (contender, runs) in contenders.iter().zip(&mut runs) {
                let place = Workspace::mount(&arguments.work, "run")?;
                runs.push(contender.run(&image, place.path())?);
            }
        }
        print(&contenders, runs);
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
        let images = Workspace::mount(&arguments.work, "images")?;
        let image = image::make(*size, images.path(), true)
            .with_context(|| format!("cannot make the image of {size} MB"))?;
        println!(
            "\n{size} MB: {} files, {} layers, archive of {} MB; {} rounds, until the first process runs",
            image.files,
            image.layers,
            image.archive_bytes >> 20,
            arguments.rounds
        );
        let mut runs: Vec<Vec<f64>> = runners.iter().map(|_| Vec::new()).collect();
        for _ in 0..arguments.rounds {
            for (runner, runs) in runners.iter().zip(&mut runs) {
                let place = Workspace::mount(&arguments.work, "run")?;
                match runner.run(&image, place.path(), arguments.upload_rate.as_deref()) {
                    Ok(wall) => runs.push(wall),
                    Err(error) => eprintln!("bench: a run is left out: {error:#}"),
                }
            }
        }
        print_first(&runners, runs);
    }
    Ok(())
}

fn print_first(runners: &[Runner], runs: Vec<Vec<f64>>) {
    let medians: Vec<Option<f64>> = runs
        .into_iter()
        .map(|mut runs| {
            runs.sort_by(f64::total_cmp);
            runs.get(runs.len() / 2).copied()
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

fn print(contenders: &[Contender], runs: Vec<Vec<Measurement>>) {
    let medians: Vec<Measurement> = runs.into_iter().map(median).collect();
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
    for (contender, measured) in contenders.iter().zip(&medians) {
        println!(
            "{:<26} {:>8.3} {:>8.3} {:>9.0} {:>9} {:>9}",
            contender.name(),
            measured.wall,
            measured.cpu,
            measured.peak_mib,
            ratio(measured.wall, of(Contender::Ours)),
            ratio(measured.wall, of(Contender::Floor)),
        );
    }
}

/// The median of each figure.
fn median(runs: Vec<Measurement>) -> Measurement {
    let middle = |of: fn(&Measurement) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measurement {
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
        let measured = |wall, cpu, peak_mib| Measurement {
            wall,
            cpu,
            peak_mib,
        };
        let runs = vec![
            measured(3.0, 1.0, 5.0),
            measured(1.0, 2.0, 9.0),
            measured(2.0, 9.0, 7.0),
        ];
        assert_eq!(median(runs), measured(2.0, 2.0, 7.0));
    }

    #[test]
    fn arguments_are_parsed() {
        let arguments =
            Arguments::try_parse_from(["bench", "--sizes", "5,100", "--only", "ours,tar"]).unwrap();
        assert_eq!((arguments.sizes.len(), arguments.only.len()), (2, 2));
    }
}
