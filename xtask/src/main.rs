//! `cargo xtask`: what people and CI run. Each task first installs what it needs from the system, and says so.
//!
//! - [`arguments`]: the command line; [`demo`]: checks and builds before the demo; [`test`]: tests of the workspace or of a crate;
//! - [`check`]: what a pull request is judged by first;
//! - every other task is a program of its own, `xtask_tasks`.

mod arguments;
mod check;
mod demo;
mod test;

use std::{env, process::ExitCode};

use xtask::{
    apt,
    error::Result,
    packages::{Purpose, missing},
    run::{cargo, step},
};

use arguments::Task;

fn main() -> ExitCode {
    let task = match arguments::parse(env::args().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("xtask: {error}; `cargo xtask help` lists the tasks");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Help => {
            print!("{}", arguments::HELP);
            Ok(())
        }
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Check => check::run(),
        Task::Setup => apt::install(&missing(Purpose::Test)),
        Task::Other { name, arguments } => {
            let purpose = match name {
                "conformance" => Purpose::Conformance,
                "package" => Purpose::Test,
                "recording" => Purpose::Run,
                "deny" => Purpose::Deny,
                _ => Purpose::Build,
            };
            apt::install(&missing(purpose))?;
            if name == "recording" {
                demo::build()?;
            }
            tasks(name, &arguments)
        }
    }
}

/// Runs a task of `xtask_tasks`.
fn tasks(name: &str, arguments: &[String]) -> Result<()> {
    let mut run = cargo();
    run.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "xtask_tasks",
        "--",
        name,
    ]);
    step(
        &format!("{name} (builds xtask_tasks first)"),
        run.args(arguments),
    )
}
