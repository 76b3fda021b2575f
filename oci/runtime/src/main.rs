//! `tucano_oci`: starts containers and runs commands in them. Meant for programs; people use `tucano`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tucano_oci_runtime::{
    exec::{self, Exec},
    probe, supervise,
};

/// Runs OCI containers, each under a supervisor of its own.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the container of a home directory (its launch.json) and stay with it, in the background; one JSON line on stdout
    /// tells how the start went.
    Supervise {
        /// The container's home directory.
        home: PathBuf,
    },
    /// Run a command in a running container; its exit code is this program's (124: not ended in time).
    Exec {
        /// The container's home directory.
        home: PathBuf,
        /// Kill it after this time, in milliseconds.
        #[arg(long)]
        timeout_ms: Option<u64>,
        /// Discard the command's output and tell the outcome as one JSON line on stdout.
        #[arg(long)]
        report: bool,
        /// The program, by the container's PATH, and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Succeed if containers can have user namespaces, with layers in this directory's file system.
    ProbeUserNamespaces {
        /// A directory to try it in.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(message) => {
            eprintln!("tucano_oci: {message}");
            ExitCode::from(125)
        }
    }
}

fn run(command: Command) -> Result<i32, String> {
    match command {
        Command::Supervise { home } => supervise::run(&home).map(|()| 0),
        Command::Exec {
            home,
            timeout_ms,
            report,
            command,
        } => exec::run(&Exec {
            home: &home,
            command: &command,
            timeout: timeout_ms.map(Duration::from_millis),
            report,
        }),
        Command::ProbeUserNamespaces { directory } => {
            probe::user_namespaces(&directory).map(|()| 0)
        }
    }
}
