//! `tucano_agentd`: settings, build, run, end.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tucano_agent::{
    agent::Agent,
    arguments::{Arguments, LogFormat},
    settings::Settings,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tucano_agentd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut settings = Settings::load(&arguments.config)?;
    settings
        .cgroup
        .get_or_insert_with(|| arguments.cgroup.clone());
    if arguments.check {
        println!("{}: usable", arguments.config.display());
        return Ok(());
    }
    log_to_stderr(arguments.log_format);
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
    // A start that is under way may finish; the containers themselves outlive the agent.
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
        tracing::info!("ending; the processes go on running");
        tucano_notify::stopping();
    })
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // Otherwise the agent panics at the first line that nobody reads any more.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
