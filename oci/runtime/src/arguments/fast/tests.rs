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
