//! Command lines that containers are started by, by the hundred. To describe all commands and options first takes longer than to
//! read one of these; whatever is not clearly one of them is left to who knows them all.

use std::{ffi::OsString, path::PathBuf};

use clap::ValueEnum;
use lexopt::{
    Arg::{Long, Short, Value},
    Parser,
};

use super::{
    Arguments, BundleOptions, Command, Create, ExecIn, Global, LogFormat, Own, Rootless, Run,
    Supervise,
};

impl Arguments {
    /// What this command line means, if it is one of the usual ones and nothing is wrong with it. The first word is the program.
    pub fn usual(words: &[OsString]) -> Option<Self> {
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
                let room = only_value(&mut parser)?;
                Command::Own(Own::Supervise(Supervise { room }))
            }
            ("exec-in", [_, command @ ..]) => {
                Command::Own(Own::ExecIn(exec_in(&mut parser, command)?))
            }
            _ => return None,
        };
        Some(Self { global, command })
    }
}

/// What comes before the command, and its name.
fn global(parser: &mut Parser) -> Option<(Global, OsString)> {
    let (mut root, mut log, mut log_format) = (None, None, None);
    let (mut debug, mut systemd_cgroup) = (false, false);
    let name = loop {
        match parser.next().ok()?? {
            Long("root") => set(&mut root, path(parser)?)?,
            Long("log") => set(&mut log, path(parser)?)?,
            Long("log-format") => {
                let format = LogFormat::from_str(value(parser)?.to_str()?, false);
                set(&mut log_format, format.ok()?)?;
            }
            Long("debug") => raise(&mut debug)?,
            Long("systemd-cgroup") => raise(&mut systemd_cgroup)?,
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
        Short('d') | Long("detach") => raise(&mut detach),
        Long("keep") => raise(&mut keep),
        _ => None,
    })?;
    Some(Run {
        options,
        detach,
        keep,
        id,
    })
}

/// What a container is made from, and its id; `further` knows other options.
fn bundle(
    parser: &mut Parser,
    further: &mut dyn FnMut(lexopt::Arg<'_>) -> Option<()>,
) -> Option<(BundleOptions, String)> {
    let (mut bundle, mut pid_file, mut console_socket) = (None, None, None);
    let (mut preserve_fds, mut id) = (None, None);
    let (mut no_pivot, mut no_new_keyring) = (false, false);
    while let Some(argument) = parser.next().ok()? {
        match argument {
            Short('b') | Long("bundle") => set(&mut bundle, path(parser)?)?,
            Long("pid-file") => set(&mut pid_file, path(parser)?)?,
            Long("console-socket") => set(&mut console_socket, path(parser)?)?,
            Long("preserve-fds") => {
                set(&mut preserve_fds, value(parser)?.to_str()?.parse().ok()?)?;
            }
            Long("no-pivot") => raise(&mut no_pivot)?,
            Long("no-new-keyring") => raise(&mut no_new_keyring)?,
            Value(word) => set(&mut id, given(word)?.into_string().ok()?)?,
            other => further(other)?,
        }
    }
    let options = BundleOptions {
        bundle: bundle.unwrap_or_else(|| ".".into()),
        pid_file,
        console_socket,
        preserve_fds: preserve_fds.unwrap_or_default(),
        no_pivot,
        no_new_keyring,
    };
    Some((options, id?))
}

fn exec_in(parser: &mut Parser, command: &[OsString]) -> Option<ExecIn> {
    let (mut home, mut timeout_ms, mut report) = (None::<PathBuf>, None, false);
    while let Some(argument) = parser.next().ok()? {
        match argument {
            Long("timeout-ms") => set(&mut timeout_ms, value(parser)?.to_str()?.parse().ok()?)?,
            Long("report") => raise(&mut report)?,
            Value(word) => set(&mut home, given(word)?.into())?,
            _ => return None,
        }
    }
    let words = command.iter().map(|word| word.to_str().map(str::to_owned));
    let command = words.collect::<Option<Vec<_>>>()?;
    (!command.is_empty()).then_some(())?;
    Some(ExecIn {
        home: home?,
        timeout_ms,
        report,
        command,
    })
}

fn only_value(parser: &mut Parser) -> Option<OsString> {
    let Value(value) = parser.next().ok()?? else {
        return None;
    };
    let is_last = parser.next().ok()?.is_none();
    given(value).filter(|_| is_last)
}

/// Given twice, it is a mistake.
fn set<T>(option: &mut Option<T>, value: T) -> Option<()> {
    option.is_none().then(|| *option = Some(value))
}

fn raise(flag: &mut bool) -> Option<()> {
    (!*flag).then(|| *flag = true)
}

/// One that looks like an option may be one whose value was forgotten.
fn value(parser: &mut Parser) -> Option<OsString> {
    let value = given(parser.value().ok()?)?;
    let looks_like_option = value.as_encoded_bytes().starts_with(b"-");
    (!looks_like_option).then_some(value)
}

fn given(word: OsString) -> Option<OsString> {
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

    fn usual(words: &[&str]) -> Option<Arguments> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        Arguments::usual(&words)
    }

    fn words(line: &str) -> Vec<&str> {
        ["tucano_oci"].into_iter().chain(line.split(' ')).collect()
    }

    #[test]
    fn the_lines_of_docker_podman_containerd_and_the_agent_are_usual() {
        for line in [
            "--root /run/docker/runtime-runc/moby --log /run/log.json --log-format json create --bundle /run/b --pid-file /run/b/init.pid box",
            "--root /run/docker/runtime-runc/moby --log=/run/log.json --log-format=json --systemd-cgroup create --bundle /run/b --pid-file /p --console-socket /run/pty.sock box",
            "create --bundle /run/b --pid-file /run/pidfile box",
            "--systemd-cgroup create --bundle=/run/b --pid-file=/run/pidfile --no-pivot --no-new-keyring --preserve-fds 2 box",
            "run -d -b /bundle box",
            "supervise room",
            "exec-in --timeout-ms 1000 --report /home -- sh -c true",
        ] {
            assert!(usual(&words(line)).is_some(), "{line}");
        }
    }

    #[test]
    fn whatever_else_is_left() {
        // The first is a container of that name, the second lacks one, and the others say more than this.
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
            assert!(usual(&words(line)).is_none(), "{line}");
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
        fn a_usual_one_means_what_the_description_of_all_says(
            line in prop::collection::vec(prop::sample::select(&WORDS[..]), 1..9),
            command in prop::sample::select(&["create", "run", "supervise", "exec-in"][..]),
            place in 0..4_usize,
        ) {
            let mut words = vec!["tucano_oci"];
            words.extend(line);
            words.insert(place.min(words.len() - 1) + 1, command);
            if let Some(usual) = usual(&words) {
                let described = Arguments::try_parse_from(&words).map_err(|error| error.to_string());
                prop_assert_eq!(Ok(usual), described, "{:?}", words);
            }
        }
    }
}
