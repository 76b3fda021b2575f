//! `tucano_balancerd`: settings, build, run, drain.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tucano_balancer::{
    daemon::{Balancer, StartError},
    detach,
    errors::chain,
    lock::{EXIT_LOCKED, LockError},
    plane::DataPlane,
    settings::Settings,
};
use tucano_daemon::{limits, log, notify};

// Clients are served by threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    log::to_stderr(settings.log_format);
    let is_child = match detach::is_child() {
        Ok(is_child) => is_child,
        Err(cause) => {
            error!(%cause, "cannot run as a child process");
            return ExitCode::FAILURE;
        }
    };
    limits::raise_open_files();
    let stop = CancellationToken::new();
    if let Err(cause) = stop_on_signals(&stop) {
        error!(%cause, "cannot watch for signals");
        return ExitCode::FAILURE;
    }
    match &settings.lock {
        Some(lock) if settings.detach_draining && !is_child => detach::run(lock, stop).await,
        _ => run(&settings, is_child, stop).await,
    }
}

async fn run(settings: &Settings, is_child: bool, stop: CancellationToken) -> ExitCode {
    match Balancer::build(settings).await {
        Ok(balancer) => {
            notify::ready();
            let plane = balancer.plane().clone();
            let notified = notify::run_watchdog(async || Some(status(&plane)));
            let draining = stop.clone();
            let notified = async {
                match is_child {
                    // The next balancer notifies the service manager while this one drains.
                    true => draining
                        .run_until_cancelled(notified)
                        .await
                        .unwrap_or_default(),
                    false => notified.await,
                }
                std::future::pending().await
            };
            tokio::select! {
                () = balancer.with_parent(is_child).run(stop) => ExitCode::SUCCESS,
                () = notified => ExitCode::FAILURE,
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
