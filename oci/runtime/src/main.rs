//! `tucano_oci`: runs containers and commands in them. Its command line is compatible with runc's, plus a few commands
//! for the agent.

mod log;
mod print;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches};
use tucano_oci_runtime::{
    arguments::{AgentCommand, Arguments, BundleOptions, Command, ExecOptions, Rootless},
    attach_client::{self, Output},
    bundle, exec,
    lifecycle::{self, Create, Event, Exec, Store, Update},
    probe, protect_program, seal_program, session, supervise,
};

use crate::log::Log;

/// Format that Docker parses, after the program's name.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Exit code of a failed command, as runc's.
const FAILED: u8 = 1;

/// Exit code of a failed `exec`.
const EXEC_FAILED: u8 = 255;

/// Exit code of a failed agent command; 1 is a common exit code of commands inside.
const AGENT_COMMAND_FAILED: u8 = 125;

fn main() -> ExitCode {
    seal_program();
    // First, because it may re-execute the program. If it fails here it fails again where it is needed, and is
    // reported then.
    protect().ok();
    let arguments = arguments();
    let format = arguments.global.log_format;
    let log = match Log::open(arguments.global.log.clone(), format) {
        Ok(log) => log,
        Err(message) => {
            Log::on_stderr().error(&message);
            return ExitCode::from(failed(&arguments.command));
        }
    };
    let outcome = match &arguments.command {
        Command::AgentCommand(command) => {
            agent_command(command).map_err(|message| (message, AGENT_COMMAND_FAILED))
        }
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

/// A false positive is harmless: it only runs the program from a read-only mount.
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
    if let Some(arguments) = Arguments::parse_fast(&words) {
        return arguments;
    }
    let command = Arguments::command().name("tucano_oci").version(VERSION);
    let given = command.get_matches_from(words);
    Arguments::from_arg_matches(&given).unwrap_or_else(|error| error.exit())
}

fn failed(command: &Command) -> u8 {
    match command {
        Command::Exec { .. } => EXEC_FAILED,
        Command::AgentCommand(_) => AGENT_COMMAND_FAILED,
        _ => FAILED,
    }
}

/// Runs a command of the agent.
fn agent_command(command: &AgentCommand) -> Result<i32, String> {
    match command {
        AgentCommand::Supervise(_) => supervise::run().map(|()| 0),
        AgentCommand::ExecIn(given) => exec::run(&exec::Exec {
            state_dir: &given.state_dir,
            command: &given.command,
            timeout: given.timeout_ms.map(std::time::Duration::from_millis),
            report: given.report,
        }),
        AgentCommand::Session { state_dir } => session::run(state_dir),
        AgentCommand::Attach { state_dir } => attach(state_dir),
        AgentCommand::Signal { state_dir, signal } => {
            let number = lifecycle::signal_number(signal).map_err(text)?;
            attach_client::signal(state_dir, number)
                .map(|()| 0)
                .map_err(text)
        }
        AgentCommand::ProbeUserNamespaces { directory } => {
            probe::user_namespaces(directory).map(|()| 0)
        }
    }
}

/// Copies a container's output; a failed write ends it.
fn attach(state_dir: &Path) -> Result<i32, String> {
    let mut attached = attach_client::attach(state_dir).map_err(text)?;
    while let Some(output) = attached.next_output().map_err(text)? {
        let passed_on = match output {
            Output::Stdout(bytes) => io::stdout()
                .write_all(&bytes)
                .and_then(|()| io::stdout().flush()),
            Output::Stderr(bytes) => io::stderr().write_all(&bytes),
        };
        passed_on.map_err(text)?;
    }
    let exit = attach_client::exit(state_dir).map_err(text)?;
    let exit = exit.ok_or("how the container ended is unknown")?;
    let signalled = exit.signal.map(|signal| 128 + signal);
    Ok(exit.code.or(signalled).unwrap_or_default())
}

/// Refuses options that cannot be honoured.
fn checked(arguments: &Arguments) -> Result<Store, String> {
    // It means to continue without cgroups, which root always reaches.
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
        } => return join(options, id, command, store, log),
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
        Command::Spec { bundle, rootless } => {
            bundle::write_default(bundle, *rootless).map_err(text)?;
        }
        Command::AgentCommand(command) => return agent_command(command),
    }
    Ok(0)
}

fn join(
    options: &ExecOptions,
    id: &str,
    command: &[String],
    store: &Store,
    log: &Log,
) -> Result<i32, String> {
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
        cgroups: options.cgroups.clone(),
        pidfd_socket: options.pidfd_socket.clone(),
        preserve_fds: options.preserve_fds,
        detach: options.detach,
        ignore_paused: options.ignore_paused,
    };
    let warn = |warning: &str| log.warning(warning);
    lifecycle::exec(store, &wanted, &warn).map_err(|error| format!("exec failed: {error}"))
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
        pidfd_socket: options.pidfd_socket.clone(),
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
