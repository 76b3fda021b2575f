//! `tucano_ctld`: settings, build, run, drain.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tucano_ctl::{
    Config, Controller, StartError,
    arguments::{Arguments, Command},
    http::server::ListenError,
    state_loop::StateHandle,
    store::{
        backup,
        lock::{DataDirLock, LockError},
    },
    tls,
};
use tucano_daemon::{limits, log, notify};
use tucano_planner::Cluster;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{}", errors.report());
            return ExitCode::from(3);
        }
    };
    if arguments.check {
        println!("{}: valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &arguments.write_ca {
        return match tls::write_ca(&config, path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tucano_ctld: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(command) = &arguments.command {
        return match state_command(&config, command) {
            Ok(message) => {
                println!("{message}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("tucano_ctld: {error}");
                ExitCode::FAILURE
            }
        };
    }
    log::to_stderr(arguments.log_format);
    // State, images and the balancer's socket are for our own user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    limits::raise_open_files();
    tucano_tls::install_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(config, &arguments));
    // An active import on a blocking thread is not awaited: it was never acknowledged.
    runtime.shutdown_background();
    code
}

/// Backs the state up, or restores it. Returns what was done.
fn state_command(config: &Config, command: &Command) -> Result<String, Box<dyn std::error::Error>> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match command {
        Command::Backup { file } => {
            backup::backup(&config.data_dir, file)?;
            Ok(format!("{} holds the controller's state", file.display()))
        }
        Command::Restore { file } => {
            let _lock = DataDirLock::take(&config.data_dir)?;
            let identity = backup::restore(&config.data_dir, file)?;
            Ok(format!(
                "restored; start the controller: it begins epoch {} of the cluster",
                identity.epoch
            ))
        }
    }
}

async fn run(config: Config, arguments: &Arguments) -> ExitCode {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        eprintln!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    let mut controller = match Controller::start(config, &arguments.config).await {
        Ok(controller) => controller,
        Err(error) => {
            eprintln!("tucano_ctld cannot start: {error}");
            return exit_code(&error);
        }
    };
    notify::ready();
    let state = controller.api().state.clone();
    let watchdog = notify::run_watchdog(async || status(&state).await);
    tokio::pin!(watchdog);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&controller).await,
            () = controller.failed() => return ExitCode::FAILURE,
            () = &mut watchdog => {}
        }
    }
    tracing::info!("shutting down");
    notify::stopping();
    controller.stop().await;
    ExitCode::SUCCESS
}

async fn reload(controller: &Controller) {
    notify::reloading();
    let api = controller.api();
    if let Err(error) = api.config.reload(&api.state).await {
        tracing::error!(%error, "the configuration was not reloaded; the old one stays in force");
    }
    notify::ready();
}

/// Status for the service manager. It comes from the state loop: a controller whose state loop hangs is dead.
async fn status(state: &StateHandle) -> Option<String> {
    let nodes = state.query(Cluster::nodes).await.ok()?;
    let alive = nodes.iter().filter(|node| node.alive.is_some()).count();
    Some(format!("{alive} of {} workers are alive", nodes.len()))
}

fn exit_code(error: &StartError) -> ExitCode {
    match error {
        StartError::Unprotected(_) => ExitCode::from(3),
        StartError::Lock(LockError::Held { .. }) => ExitCode::from(4),
        StartError::Listen(ListenError::InUse { .. }) => ExitCode::from(5),
        _ => ExitCode::FAILURE,
    }
}
