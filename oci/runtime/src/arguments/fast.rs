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
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;

    use super::*;

    fn parse_fast(words: &[&str]) -> Option<Arguments> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        Arguments::parse_fast(&words)
    }

    fn words(line: &str) -> Vec<&str> {
        ["tucano_oci"].into_iter().chain(line.split(' ')).collect()
    }

    #[test]
    fn command_lines_of_common_callers_take_the_fast_path() {
        for line in [
            "--root /run/docker/runtime-runc/moby --log /run/log.json --log-format json create --bundle /run/b --pid-file /run/b/init.pid box",
            "--root /run/docker/runtime-runc/moby --log=/run/log.json --log-format=json --systemd-cgroup create --bundle /run/b --pid-file /p --console-socket /run/pty.sock box",
            "create --bundle /run/b --pid-file /run/pidfile box",
            "--systemd-cgroup create --bundle=/run/b --pid-file=/run/pidfile --no-pivot --no-new-keyring --preserve-fds 2 box",
            "run -d -b /bundle box",
            "supervise title_space",
            "exec-in --timeout-ms 1000 --report /home -- sh -c true",
        ] {
            assert!(parse_fast(&words(line)).is_some(), "{line}");
        }
    }

    #[test]
    fn other_command_lines_are_left_to_clap() {
        // The first names a container `run`, the second lacks an id, and the others have arguments that only clap
        // knows.
        for line in [
            "kill run",
            "run",
            "run --help",
            "run --nope box",
            "run -- box",
            "run one two",
            "run --bundle --detach box",
            "run -d -d box",
            "--root= run box",
            "--rootless true run box",
            "exec-in /home true",
            "exec-in /home --",
            "supervise",
            "state box",
        ] {
            assert!(parse_fast(&words(line)).is_none(), "{line}");
        }
    }

    const WORDS: [&str; 34] = [
        "create",
        "run",
        "supervise",
        "exec-in",
        "kill",
        "box",
        "/x",
        "7",
        "-1",
        "",
        "-",
        "--",
        "--root",
        "--root=/r",
        "--root=",
        "--log",
        "--log-format",
        "json",
        "--log-format=text",
        "--debug",
        "--systemd-cgroup",
        "-b",
        "-b/y",
        "-b=/y",
        "--bundle=/z",
        "--pid-file",
        "--preserve-fds",
        "--no-pivot",
        "-d",
        "--detach",
        "--keep",
        "--timeout-ms",
        "--report",
        "--help",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_fast_parser_agrees_with_clap(
            line in prop::collection::vec(prop::sample::select(&WORDS[..]), 1..9),
            command in prop::sample::select(&["create", "run", "supervise", "exec-in"][..]),
            place in 0..4_usize,
        ) {
            let mut words = vec!["tucano_oci"];
            words.extend(line);
            words.insert(place.min(words.len() - 1) + 1, command);
            if let Some(usual) = parse_fast(&words) {
                let described = Arguments::try_parse_from(&words).map_err(|error| error.to_string());
                prop_assert_eq!(Ok(usual), described, "{:?}", words);
            }
        }
    }
}
