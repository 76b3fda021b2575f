//! `tucano_balancerd`: settings, build, run, drain.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tucano_balancer::{
    daemon::{Balancer, StartError, raise_descriptor_limit},
    errors::chain,
    lock::{EXIT_LOCKED, LockError},
    plane::DataPlane,
    settings::Settings,
};
use tucano_daemon::{log, notify};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    log::to_stderr(settings.log_format);
    raise_descriptor_limit();
    let stop = CancellationToken::new();
    if let Err(cause) = stop_on_signals(&stop) {
        error!(%cause, "cannot watch for signals");
        return ExitCode::FAILURE;
    }
    match Balancer::build(&settings).await {
        Ok(balancer) => {
            notify::ready();
            let plane = balancer.plane().clone();
            tokio::select! {
                () = balancer.run(stop) => ExitCode::SUCCESS,
                () = notify::run_watchdog(async || Some(status(&plane))) => ExitCode::FAILURE,
            }
        }
        Err(cause) => {
            error!("{}", chain(&cause));
            exit_code(&cause)
        }
    }
}

/// The status line shown by the service manager.
fn status(plane: &DataPlane) -> String {
    format!("{} connections", plane.clients.connections())
}

fn exit_code(cause: &StartError) -> ExitCode {
    match cause {
        StartError::Lock(LockError::Taken { .. }) => ExitCode::from(EXIT_LOCKED),
        _ => ExitCode::FAILURE,
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
            notify::stopping();
            stop.cancel();
        }
    });
    Ok(())
}
