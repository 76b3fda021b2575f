//! A fast parser for the command lines that start containers. Building clap's description of every command takes
//! longer than starting a container needs for all its arguments. Anything that is not clearly one of these command
//! lines is left to clap.

use std::{ffi::OsString, path::PathBuf};

use clap::ValueEnum;
use lexopt::{
    Arg::{Long, Short, Value},
    Parser,
};

use super::{
    AgentCommand, Arguments, BundleOptions, Command, Create, ExecIn, Global, LogFormat, Rootless,
    Run, Supervise,
};

impl Arguments {
    /// Parses one of the common command lines; the first word is the program's name. Returns none for anything else,
    /// including errors, so that clap parses it or reports the error.
    pub fn parse_fast(words: &[OsString]) -> Option<Self> {
        let end = words.iter().position(|word| word == "--");
        let (before, behind) = words.split_at(end.unwrap_or(words.len()));
        let mut parser = Parser::from_iter(before);
        let (global, name) = global(&mut parser)?;
        let command = match (name.to_str()?, behind) {
            ("create", []) => {
                let (options, id) = bundle(&mut parser, &mut |_| None)?;
                Command::Create(Create { options, id })
            }
            ("run", []) => Command::Run(run(&mut parser)?),
            ("supervise", []) => {
                let title_space = single_value(&mut parser)?;
                Command::AgentCommand(AgentCommand::Supervise(Supervise { title_space }))
            }
            ("exec-in", [_, command @ ..]) => {
                Command::AgentCommand(AgentCommand::ExecIn(exec_in(&mut parser, command)?))
            }
            _ => return None,
        };
        Some(Self { global, command })
    }
}

/// Parses the global options and the name of the command.
fn global(parser: &mut Parser) -> Option<(Global, OsString)> {
    let (mut root, mut log, mut log_format) = (None, None, None);
    let (mut debug, mut systemd_cgroup) = (false, false);
    let name = loop {
        match parser.next().ok()?? {
            Long("root") => set_once(&mut root, path(parser)?)?,
            Long("log") => set_once(&mut log, path(parser)?)?,
            Long("log-format") => {
                let format = LogFormat::from_str(value(parser)?.to_str()?, false);
                set_once(&mut log_format, format.ok()?)?;
            }
            Long("debug") => set_flag(&mut debug)?,
            Long("systemd-cgroup") => set_flag(&mut systemd_cgroup)?,
            Value(name) => break name,
            _ => return None,
        }
    };
    let global = Global {
        root: root.unwrap_or_else(|| super::ROOT.into()),
        log,
        log_format: log_format.unwrap_or_default(),
        debug,
        systemd_cgroup,
        rootless: Rootless::default(),
    };
    Some((global, name))
}

fn run(parser: &mut Parser) -> Option<Run> {
    let (mut detach, mut keep) = (false, false);
    let (options, id) = bundle(parser, &mut |option| match option {
        Short('d') | Long("detach") => set_flag(&mut detach),
        Long("keep") => set_flag(&mut keep),
        _ => None,
    })?;
    Some(Run {
        options,
        detach,
        keep,
        id,
    })
}

/// Parses the options of a bundle and the id; `further` handles the remaining options.
fn bundle(
    parser: &mut Parser,
    further: &mut dyn FnMut(lexopt::Arg<'_>) -> Option<()>,
) -> Option<(BundleOptions, String)> {
    let (mut bundle, mut pid_file, mut console_socket) = (None, None, None);
    let (mut preserve_fds, mut id) = (None, None);
    let (mut no_pivot, mut no_new_keyring) = (false, false);
    while let Some(argument) = parser.next().ok()? {
        match argument {
            Short('b') | Long("bundle") => set_once(&mut bundle, path(parser)?)?,
            Long("pid-file") => set_once(&mut pid_file, path(parser)?)?,
            Long("console-socket") => set_once(&mut console_socket, path(parser)?)?,
            Long("preserve-fds") => {
                set_once(&mut preserve_fds, value(parser)?.to_str()?.parse().ok()?)?;
            }
            Long("no-pivot") => set_flag(&mut no_pivot)?,
            Long("no-new-keyring") => set_flag(&mut no_new_keyring)?,
            Value(word) => set_once(&mut id, non_empty(word)?.into_string().ok()?)?,
            other => further(other)?,
        }
    }
    let options = BundleOptions {
        bundle: bundle.unwrap_or_else(|| ".".into()),
        pid_file,
        pidfd_socket: None,
        console_socket,
        preserve_fds: preserve_fds.unwrap_or_default(),
        no_pivot,
        no_new_keyring,
    };
    Some((options, id?))
}

fn exec_in(parser: &mut Parser, command: &[OsString]) -> Option<ExecIn> {
    let (mut state_dir, mut timeout_ms, mut report) = (None::<PathBuf>, None, false);
    while let Some(argument) = parser.next().ok()? {
        match argument {
            Long("timeout-ms") => {
                set_once(&mut timeout_ms, value(parser)?.to_str()?.parse().ok()?)?
            }
            Long("report") => set_flag(&mut report)?,
            Value(word) => set_once(&mut state_dir, non_empty(word)?.into())?,
            _ => return None,
        }
    }
    let words = command.iter().map(|word| word.to_str().map(str::to_owned));
    let command = words.collect::<Option<Vec<_>>>()?;
    (!command.is_empty()).then_some(())?;
    Some(ExecIn {
        state_dir: state_dir?,
        timeout_ms,
        report,
        command,
    })
}

fn single_value(parser: &mut Parser) -> Option<OsString> {
    let Value(value) = parser.next().ok()?? else {
        return None;
    };
    let is_last = parser.next().ok()?.is_none();
    non_empty(value).filter(|_| is_last)
}

/// None if the option was already set.
fn set_once<T>(option: &mut Option<T>, value: T) -> Option<()> {
    option.is_none().then(|| *option = Some(value))
}

fn set_flag(flag: &mut bool) -> Option<()> {
    (!*flag).then(|| *flag = true)
}

/// None for a value that looks like an option: its value was probably forgotten.
fn value(parser: &mut Parser) -> Option<OsString> {
    let value = non_empty(parser.value().ok()?)?;
    let looks_like_option = value.as_encoded_bytes().starts_with(b"-");
    (!looks_like_option).then_some(value)
}

fn non_empty(word: OsString) -> Option<OsString> {
    (!word.is_empty()).then_some(word)
}

fn path(parser: &mut Parser) -> Option<PathBuf> {
    value(parser).map(PathBuf::from)
}

#[cfg(test)]
mod tests;
