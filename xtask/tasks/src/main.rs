//! Tasks of `cargo xtask` that need more than the standard library.
//!
//! - [`demo`]: a cluster on this machine, with a service that answers; [`leftovers`]: that nothing of it remains;
//! - [`package`]: Debian packages; [`deny`]: licences, sources and vulnerabilities of dependencies;
//! - [`book`]: the documentation; [`recording`]: the demo as a picture;
//! - [`conformance`]: another project's suite for container runtimes, for ours beside others.

mod book;
mod conformance;
mod demo;
mod deny;
mod http;
mod leftovers;
mod package;
mod recording;
mod run;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use run::workspace;

/// Tasks of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a cluster of a controller and three workers on this machine, deploy images/hello, and send it requests.
    Demo(demo::Demo),
    /// Build the sample services' images into target/images.
    Images,
    /// Generate the reference, check every link, and build the documentation into target/book.
    Book,
    /// Record the demo as docs/demo.svg.
    Recording,
    /// Build static programs and their Debian packages into target/packages.
    Package(package::Options),
    /// Run opencontainers/runtime-tools' validation suite for tucano_oci beside runc and crun, and print what fails for whom.
    Conformance(conformance::Conformance),
    /// Check the dependencies' licences, sources and known vulnerabilities.
    Deny,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Demo(demo) => demo::run(&demo),
        Task::Images => images(),
        Task::Book => book::run(),
        Task::Recording => recording::run(),
        Task::Package(options) => package::run(&options),
        Task::Conformance(wanted) => conformance::run(&wanted),
        Task::Deny => deny::run(),
    }
}

fn images() -> anyhow::Result<()> {
    let out = workspace().join("target/images");
    let archives = tucano_image_builder::build_all(&workspace(), &out)
        .context("the sample images cannot be built")?;
    for archive in archives {
        println!("{}", archive.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
