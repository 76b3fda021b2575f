//! `cargo xtask`: what people and CI run. Each task first sets up what it needs from the system, and says so.
//!
//! - [`packages`]: what the system must have, and why; [`apt`]: installing what is missing;
//! - [`demo`]: a cluster on this machine, with a service that answers; [`leftovers`]: that nothing of it remains;
//! - [`package`]: Debian packages; [`deny`]: licences, sources and vulnerabilities of dependencies;
//! - [`conformance`]: another project's suite for container runtimes, for ours beside others.

mod apt;
mod conformance;
mod demo;
mod deny;
mod http;
mod leftovers;
mod package;
mod packages;
mod run;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use packages::Purpose;
use run::{cargo, step, workspace};

/// Tasks of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a cluster of a controller and three workers on this machine, deploy images/hello, and show it answering.
    Demo(demo::Demo),
    /// Install what the tests need, build everything, and run all tests.
    Test {
        /// For `cargo test`, such as `-p tucano_api` or a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the sample services' images into target/images.
    Images,
    /// Build static programs and their Debian packages into target/packages.
    Package(package::Options),
    /// Run opencontainers/runtime-tools' validation suite for tucano_oci beside runc and crun, and print what fails for whom.
    Conformance(conformance::Conformance),
    /// Only install what the other tasks need from the system.
    Setup,
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
        Task::Demo(demo) => {
            apt::install(Purpose::Run)?;
            build()?;
            demo::run(&demo)
        }
        Task::Test { arguments } => {
            apt::install(Purpose::Test)?;
            if needs_packages(&arguments) {
                package::run(&package::Options::quick())?;
            }
            build()?;
            test(&arguments)
        }
        Task::Images => {
            apt::install(Purpose::Build)?;
            images()
        }
        Task::Package(options) => {
            apt::install(Purpose::Build)?;
            package::run(&options)
        }
        Task::Conformance(wanted) => {
            apt::install(Purpose::Conformance)?;
            conformance::run(&wanted)
        }
        Task::Setup => apt::install(Purpose::Test),
        Task::Deny => deny::run(),
    }
}

fn build() -> anyhow::Result<()> {
    step(
        "building the workspace",
        cargo().args(["build", "--workspace", "--locked"]),
    )?;
    images()
}

fn images() -> anyhow::Result<()> {
    eprintln!("xtask: building the sample images");
    let out = workspace().join("target/images");
    let archives = tucano_image_builder::build_all(&workspace(), &out)
        .context("the sample images cannot be built")?;
    for archive in archives {
        eprintln!("  {}", archive.display());
    }
    Ok(())
}

/// Machines that tests boot install the packages.
fn needs_packages(arguments: &[OsString]) -> bool {
    let is_selection =
        |argument: &OsString| ["-p", "--package"].iter().any(|flag| argument == flag);
    !arguments.iter().any(is_selection)
        || arguments.iter().any(|argument| argument == "tucano_tests")
}

/// A test that lacks something of the machine fails here instead of skipping itself: all of it was just set up.
fn test(arguments: &[OsString]) -> anyhow::Result<()> {
    let mut command = cargo();
    command.arg("test").env("TUCANO_TESTS_MUST_RUN", "1");
    if !arguments
        .iter()
        .any(|argument| argument == "-p" || argument == "--package")
    {
        command.arg("--workspace");
    }
    step(
        "running the tests",
        // Every failure of a run is told, not only those of the first program.
        command.args(["--locked", "--no-fail-fast"]).args(arguments),
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["xtask", "test", "-p", "tucano_api", "--", "--nocapture"])
                .unwrap();
        let Task::Test { arguments } = parsed.task else {
            panic!("test is another task");
        };
        assert_eq!(arguments, ["-p", "tucano_api", "--", "--nocapture"]);
        assert!(!needs_packages(&arguments));
        assert!(needs_packages(&["-p".into(), "tucano_tests".into()]));
        assert!(needs_packages(&[]));
    }
}
