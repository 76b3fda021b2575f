//! `tucano_oci`: starts containers and runs commands in them. It takes runc's command line, so that programs made for that run
//! containers by it; and it has a few commands of its own, for the agent.

mod log;
mod print;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches};
use tucano_oci_runtime::{
    arguments::{Arguments, BundleOptions, Command, ExecOptions, Own, Rootless},
    attached::{self, Output},
    bundle, exec,
    lifecycle::{self, Create, Event, Exec, Store, Update},
    probe, protect_program, seal_program, session, supervise,
};

use crate::log::Log;

/// As Docker reads it, behind the program's name.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// What a command that failed ends with, as callers of runc expect it.
const FAILED: u8 = 1;

/// The same of `exec`.
const EXEC_FAILED: u8 = 255;

/// What a command for the agent that failed ends with: a command inside may well end with 1.
const OWN_FAILED: u8 = 125;

fn main() -> ExitCode {
    seal_program();
    // Before anything else, which would have to be done again. What fails here fails again where it is needed, and is told.
    protect().ok();
    let arguments = arguments();
    let log = Log::new(arguments.global.log.clone(), arguments.global.log_format);
    let outcome = match &arguments.command {
        Command::Own(command) => own(command).map_err(|message| (message, OWN_FAILED)),
        command => checked(&arguments)
            .and_then(|store| run(&arguments, &store, &log))
            .map_err(|message| (message, failed(command))),
    };
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err((message, code)) => {
            log.error(&message);
            ExitCode::from(code)
        }
    }
}

/// Whatever else these words may mean on a command line: to run from a read-only mount needlessly does no harm.
fn protect() -> Result<(), String> {
    const MAKE_OR_ENTER: [&str; 4] = ["exec", "supervise", "exec-in", "session"];
    let mut words = std::env::args_os().skip(1);
    if words.any(|word| MAKE_OR_ENTER.iter().any(|name| word == *name)) {
        return protect_program();
    }
    Ok(())
}

fn arguments() -> Arguments {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(usual) = Arguments::usual(&words) {
        return usual;
    }
    let command = Arguments::command().name("tucano_oci").version(VERSION);
    let given = command.get_matches_from(words);
    Arguments::from_arg_matches(&given).unwrap_or_else(|error| error.exit())
}

fn failed(command: &Command) -> u8 {
    match command {
        Command::Exec { .. } => EXEC_FAILED,
        _ => FAILED,
    }
}

/// The commands that the agent uses.
fn own(command: &Own) -> Result<i32, String> {
    match command {
        Own::Supervise(_) => supervise::run().map(|()| 0),
        Own::ExecIn(given) => exec::run(&exec::Exec {
            home: &given.home,
            command: &given.command,
            timeout: given.timeout_ms.map(std::time::Duration::from_millis),
            report: given.report,
        }),
        Own::Session { home } => session::run(home),
        Own::Attach { home } => attach(home),
        Own::Signal { home, signal } => {
            let number = lifecycle::signal_number(signal).map_err(text)?;
            attached::signal(home, number).map(|()| 0).map_err(text)
        }
        Own::ProbeUserNamespaces { directory } => probe::user_namespaces(directory).map(|()| 0),
    }
}

/// Passes on what a container writes; what cannot be passed on any more ends it.
fn attach(home: &Path) -> Result<i32, String> {
    let mut attached = attached::attach(home).map_err(text)?;
    while let Some(output) = attached.next_output().map_err(text)? {
        let passed_on = match output {
            Output::Stdout(bytes) => io::stdout()
                .write_all(&bytes)
                .and_then(|()| io::stdout().flush()),
            Output::Stderr(bytes) => io::stderr().write_all(&bytes),
        };
        passed_on.map_err(text)?;
    }
    let exit = attached::exit(home).map_err(text)?;
    let exit = exit.ok_or("how the container ended is not known")?;
    let signalled = exit.signal.map(|signal| 128 + signal);
    Ok(exit.code.or(signalled).unwrap_or_default())
}

/// Refuses what would be done otherwise than it was asked for.
fn checked(arguments: &Arguments) -> Result<Store, String> {
    // It would only mean to go on where cgroups are out of reach, which they never are for root.
    if arguments.global.rootless == Rootless::True && !rustix::process::geteuid().is_root() {
        return Err("--rootless is not supported for other users than root: run as root".into());
    }
    Ok(Store::at(arguments.global.root.clone()))
}

fn run(arguments: &Arguments, store: &Store, log: &Log) -> Result<i32, String> {
    let by_systemd = arguments.global.systemd_cgroup;
    match &arguments.command {
        Command::Create(create) => {
            let wanted = wanted(&create.options, &create.id, true, by_systemd)?;
            let warnings = lifecycle::create(store, &wanted).map_err(text)?;
            warnings.iter().for_each(|warning| log.warning(warning));
        }
        Command::Run(run) => {
            let wanted = wanted(&run.options, &run.id, run.detach, by_systemd)?;
            let ended = lifecycle::run(store, &wanted, run.detach, run.keep).map_err(text)?;
            ended
                .warnings
                .iter()
                .for_each(|warning| log.warning(warning));
            return Ok(ended.code);
        }
        Command::Start { id } => lifecycle::start(store, id).map_err(text)?,
        Command::Kill { all, id, signal } => {
            lifecycle::kill(store, id, signal, *all).map_err(text)?;
        }
        Command::Delete { force, id } => {
            let warnings = lifecycle::delete(store, id, *force).map_err(text)?;
            warnings.iter().for_each(|warning| log.warning(warning));
        }
        Command::Exec {
            options,
            id,
            command,
        } => return join(options, id, command, store),
        Command::Pause { id } => lifecycle::pause(store, id, true).map_err(text)?,
        Command::Resume { id } => lifecycle::pause(store, id, false).map_err(text)?,
        Command::Ps {
            format,
            id,
            arguments,
        } => {
            let pids = lifecycle::processes(store, id).map_err(text)?;
            print::processes(&pids, *format, arguments)?;
        }
        Command::Update { limits, id } => {
            let wanted = Update {
                file: limits.resources.clone(),
                fields: limits.fields(),
            };
            lifecycle::update(store, id, &wanted).map_err(text)?;
        }
        Command::Events {
            stats,
            interval,
            id,
        } => {
            if *stats {
                print::stats(id, &lifecycle::stats(store, id).map_err(text)?)?;
            } else {
                let mut printed = Ok(());
                let tell = |event: Event| {
                    printed = match event {
                        Event::Stats(stats) => print::stats(id, &stats),
                        Event::OutOfMemory => print::out_of_memory(id),
                    };
                    printed.is_ok()
                };
                lifecycle::watch(store, id, *interval, tell).map_err(text)?;
                printed?;
            }
        }
        Command::State { id } => print::state(&store.find(id).map_err(text)?)?,
        Command::List { format, quiet } => {
            print::list(&store.list().map_err(text)?, *format, *quiet)?;
        }
        Command::Features => print::features()?,
        Command::Spec { bundle } => bundle::write_default(bundle).map_err(text)?,
        Command::Own(command) => return own(command),
    }
    Ok(0)
}

fn join(options: &ExecOptions, id: &str, command: &[String], store: &Store) -> Result<i32, String> {
    protect_program()?;
    let wanted = Exec {
        id: id.to_owned(),
        command: command.to_vec(),
        process_file: options.process.clone(),
        env: options.env.clone(),
        cwd: options.cwd.clone(),
        user: options.user.clone(),
        additional_gids: options.additional_gids.clone(),
        capabilities: options.cap.clone(),
        apparmor_profile: options.apparmor.clone(),
        selinux_label: options.process_label.clone(),
        no_new_privileges: options.no_new_privs,
        terminal: options.tty,
        console_socket: options.console_socket.clone(),
        pid_file: options.pid_file.clone(),
        preserve_fds: options.preserve_fds,
        detach: options.detach,
        ignore_paused: options.ignore_paused,
    };
    lifecycle::exec(store, &wanted).map_err(|error| format!("exec failed: {error}"))
}

fn wanted(
    options: &BundleOptions,
    id: &str,
    detach: bool,
    systemd_cgroup: bool,
) -> Result<Create, String> {
    Ok(Create {
        id: id.to_owned(),
        bundle: options.bundle.clone(),
        pid_file: options.pid_file.clone(),
        console_socket: options.console_socket.clone(),
        preserve_fds: options.preserve_fds,
        keep_keyring: options.no_new_keyring,
        no_pivot: options.no_pivot,
        detach,
        systemd_cgroup,
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
