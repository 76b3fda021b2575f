//! `tucano_agentd`: settings, build, run, end.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tucano_agent::{
    agent::Agent,
    arguments::{Arguments, Step},
    confined,
    settings::{LoadError, Settings},
};
use tucano_daemon::{log, notify};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref() {
                Some(LoadError::Invalid(errors)) => eprintln!("{}", errors.report()),
                _ => eprintln!("tucano_agentd: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(step) = &arguments.step {
        log::to_stderr(arguments.log_format);
        let done = match step {
            Step::UnpackLayer { request } => confined::unpack_layer(request),
            Step::CopyVolume { request } => confined::copy_volume(request),
        };
        return done.map_err(anyhow::Error::msg);
    }
    let mut settings = Settings::load(&arguments.config)?;
    settings
        .cgroup
        .get_or_insert_with(|| arguments.cgroup.clone());
    if arguments.check {
        println!("{}: usable", arguments.config.display());
        return Ok(());
    }
    log::to_stderr(arguments.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        let end = end_signal()?;
        let agent = Agent::build(settings).await?;
        agent.run(end).await?;
        anyhow::Ok(())
    });
    // A start in progress may finish; containers outlive the agent.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// Completes at SIGTERM or SIGINT.
fn end_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; the processes keep running");
        notify::stopping();
    })
}
