//! `tucano_ctld`: settings, build, run, drain.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tucano_ctl::{
    Config, Controller, StartError, http::server::ListenError, store::lock::LockError,
};

const AFTER_HELP: &str = "\
Exit codes: 0 ended as asked, or the configuration is valid; 2 wrong usage; 3 invalid configuration;
4 the data directory is in use; 5 an address is in use; 1 anything else.

SIGHUP reloads the configuration. SIGTERM and SIGINT end the controller and its balancer; containers run on.";

/// Controller of a Tucano cluster.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// Static configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/tucano/ctl.toml")]
    config: PathBuf,
    /// Only validate the configuration.
    #[arg(long)]
    check: bool,
    /// How to write the log, which goes to stderr; RUST_LOG sets what is in it.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    };
    if arguments.check {
        println!("{}: valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    start_log(arguments.log_format);
    // What we make is for our own user alone: the state, the images, the balancer's socket.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is installed already");
    }
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
    // An import that is under way on a blocking thread is not waited for: it was never acknowledged.
    runtime.shutdown_background();
    code
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Otherwise it panics when whoever reads stderr is gone.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
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
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let api = controller.api();
                if let Err(error) = api.config.reload(&api.brain).await {
                    tracing::error!(%error, "the configuration was not reloaded; the old one stays in force");
                }
            }
            () = controller.failed() => return ExitCode::FAILURE,
        }
    }
    tracing::info!("ending");
    controller.stop().await;
    ExitCode::SUCCESS
}

fn exit_code(error: &StartError) -> ExitCode {
    match error {
        StartError::Unprotected(_) => ExitCode::from(3),
        StartError::Lock(LockError::Held { .. }) => ExitCode::from(4),
        StartError::Listen(ListenError::InUse { .. }) => ExitCode::from(5),
        _ => ExitCode::FAILURE,
    }
}
