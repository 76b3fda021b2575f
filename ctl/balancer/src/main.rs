//! `tucano_balancerd`: settings, build, run, drain.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tracing_subscriber::EnvFilter;
use tucano_balancer::{
    daemon::{Balancer, StartError, raise_descriptor_limit},
    errors::chain,
    lock::{EXIT_LOCKED, LockError},
    plane::Plane,
    settings::{LogFormat, Settings},
};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    start_log(settings.log_format);
    raise_descriptor_limit();
    let stop = CancellationToken::new();
    if let Err(cause) = stop_on_signals(&stop) {
        error!(%cause, "cannot watch for signals");
        return ExitCode::FAILURE;
    }
    match Balancer::build(&settings).await {
        Ok(balancer) => {
            tucano_notify::ready();
            let plane = balancer.plane().clone();
            tokio::select! {
                () = balancer.run(stop) => ExitCode::SUCCESS,
                () = tucano_notify::beat(async || Some(status(&plane))) => ExitCode::FAILURE,
            }
        }
        Err(cause) => {
            error!("{}", chain(&cause));
            exit_code(&cause)
        }
    }
}

/// For the service manager.
fn status(plane: &Plane) -> String {
    format!("{} connections", plane.clients.connections())
}

fn exit_code(cause: &StartError) -> ExitCode {
    match cause {
        StartError::Lock(LockError::Taken { .. }) => ExitCode::from(EXIT_LOCKED),
        _ => ExitCode::FAILURE,
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // The balancer outlives the controller that started it and read its log: then nobody hears.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The first SIGTERM or SIGINT drains, the second ends the program at once.
fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(1);
            }
            tucano_notify::stopping();
            stop.cancel();
        }
    });
    Ok(())
}
