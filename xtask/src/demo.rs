//! What comes before the demo: everything that could stop it is looked at before the first program is compiled.

use std::process::Command;

use xtask::{
    apt,
    error::{Error, Result},
    packages::{Purpose, missing},
    ports,
    run::{cargo, is_root, programs, step},
};

use crate::arguments::Demo;

const API_PORT: u16 = 7070;
const BALANCER_PORT: u16 = 8080;
/// What the demo runs: nothing else is built.
const PROGRAMS: [&str; 7] = [
    "tucano",
    "tucano_ctld",
    "tucano_balancerd",
    "tucano_agentd",
    "tucano_oci",
    "tucano_vhost",
    "xtask_tasks",
];

pub(crate) fn run(demo: &Demo) -> Result<()> {
    eprintln!(
        "xtask: a cluster on this machine: 1 controller and 3 workers, with images/hello deployed six times\n\
         xtask: 1/5 checking privileges, ports and packages"
    );
    if !is_root() {
        return Err(Error::new(
            "the demo makes namespaces and cgroups, which only root may: run it with sudo",
        ));
    }
    let api = ports::free(demo.api_port, API_PORT, "--api-port", demo.once)?;
    let balancer = ports::free(
        demo.balancer_port,
        BALANCER_PORT,
        "--balancer-port",
        demo.once,
    )?;
    apt::install(&missing(Purpose::Run))?;
    build()?;
    let mut play = Command::new(programs().join("xtask_tasks"));
    play.args(["demo", "--api", &api.to_string()]);
    play.args(["--balancer", &balancer.to_string()]);
    if demo.once {
        play.arg("--once");
    }
    hand_over(&mut play)
}

/// With the features of the whole workspace, so that tests share what is built.
pub(crate) fn build() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked", "--workspace"]);
    for program in PROGRAMS {
        build.args(["--bin", program]);
    }
    step(
        "2/5 building the programs (the first time a few minutes; cargo shows the progress)",
        &mut build,
    )
}

/// Signals of the terminal then reach one program only, which ends the cluster in order.
fn hand_over(command: &mut Command) -> Result<()> {
    let error = std::os::unix::process::CommandExt::exec(command);
    Err(Error::new(format!(
        "cannot run {}: {error}",
        command.get_program().display()
    )))
}
