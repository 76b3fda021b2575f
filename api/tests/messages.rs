//! Every message of this crate that a user can see. `cargo insta review` (or `INSTA_UPDATE=always`) accepts a change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;

use tucano_api::{
    agent::Exit,
    ids::{Digest, NodeName, ProcessId, ServiceName},
    service::ServiceConfig,
    settings::parse_all,
    units::{Bytes, Span, Timestamp},
};

const VALID: &str = "name = \"hello\"\nconcurrency = 6\nport = 8080\n";

/// Each text, and what is said about it.
fn reports(file: &str, texts: &[&str]) -> String {
    let mut all = String::new();
    for text in texts {
        let report = match parse_all::<ServiceConfig>(file, text) {
            Ok(_) => panic!("{text:?} is valid"),
            Err(errors) => errors.report(),
        };
        writeln!(all, "{report}\n").unwrap();
    }
    all
}

/// The same for lines that are added to a valid configuration.
fn reports_of(lines: &[&str]) -> String {
    let texts: Vec<_> = lines
        .iter()
        .map(|line| format!("{VALID}{line}\n"))
        .collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    reports("hello.toml", &texts)
}

#[test]
fn errors_of_a_services_configuration() {
    let lines = [
        "memry = \"1GiB\"",
        "colour = \"red\"",
        "memory = \"lots\"",
        "memory = -1",
        "memory = \"1KiB\"",
        "memory = true",
        "disk = \"2EiB\"",
        "cpus = 0.0",
        "cpus = \"half\"",
        "pids = 0",
        "pids = 1.5",
        "stop_timeout = \"2h\"",
        "stop_timeout = \"soon\"",
        "stop_timeout = 5",
        "hosts = [\"Www Example\"]",
        "hosts = \"www.example.org\"",
        "path_prefix = \"api\"",
        "env = { \"A=B\" = \"1\" }",
        "env = { A = 1 }",
        "args = \"-v\"",
        "args = [\"a\\u0000b\"]",
        "user = \"-1\"",
        "user = \"4294967296\"",
        "user = \"a b\"",
        "caps = \"wbe\"",
        "caps = [\"CHWON\"]",
        "caps = [\"SYS_ADMIN\"]",
        "caps = [\"XYZZY\"]",
        "caps = 7",
        "read_only = \"yes\"",
        "tmp_size = \"1MiB\"",
        "read_only = true\ntmp_size = 0",
        "shm_size = \"1GiB\"",
        "health = { http = \"/\", exec = [\"x\"] }",
        "health = { http = \"healthz\" }",
        "health = { exec = [] }",
        "health = { interval = \"0s\" }",
        "health = { intervall = \"1s\" }",
        "[health]\nhttp = 80",
    ];
    insta::assert_snapshot!(reports_of(&lines));
}

#[test]
fn errors_of_what_every_service_must_have() {
    let texts = [
        "",
        "name = \"hello\"\nport = 8080\n",
        "name = \"Hello World\"\nconcurrency = 1\nport = 8080\n",
        "name = \"hello\"\nconcurrency = 0\nport = 0\n",
        "name = \"hello\"\nconcurrency = 10001\nport = 65536\n",
        "name = \"hello\"\nconcurrency = \"six\"\nport = -1\n",
        "name = [\"hello\"]\nconcurrency = 6.5\nport = 8080\n",
    ];
    insta::assert_snapshot!(reports("hello.toml", &texts));
}

#[test]
fn several_errors_of_one_configuration() {
    let text = "nam = \"hello\"\nconcurrency = 0\nport = \"http\"\nmemory = \"1KiB\"\nuser = \"-1\"\n\n[health]\ninterval = 1\ngrce = \"1m\"\n";
    insta::assert_snapshot!(reports("hello.toml", &[text]));
}

#[test]
fn errors_of_the_notation() {
    let toml = [
        "name = hello\n",
        "name = \"hello\nconcurrency = 1\n",
        "name \"hello\"\n",
        "[health\ninterval = \"1s\"\n",
        "name = \"a\"\nname = \"b\"\n",
    ];
    let json = [
        "{ \"name\": \"hello\",\n  \"port\": 8080, }",
        "{ \"name\": \"hello\"",
        "{ name: \"hello\" }",
        "{ \"name\": \"a\", \"name\": \"b\", \"concurrency\": 1, \"port\": 1 }",
        "{\n  \"name\": \"hello\",\n  \"concurrency\": null,\n  \"port\": \"8080\"\n}",
    ];
    let long = "#".repeat(1_100_000);
    let all = [
        reports("hello.toml", &toml),
        reports("hello.json", &json),
        reports("hello.toml", &[&long]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn errors_of_names_and_quantities() {
    let errors = [
        "Hello".parse::<ServiceName>().unwrap_err().to_string(),
        "w_1".parse::<NodeName>().unwrap_err().to_string(),
        "hello".parse::<ProcessId>().unwrap_err().to_string(),
        "md5:0".parse::<Digest>().unwrap_err().to_string(),
        "lots".parse::<Bytes>().unwrap_err(),
        "soon".parse::<Span>().unwrap_err(),
    ];
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn how_a_process_ended() {
    let exit = |code, signal| Exit {
        code,
        signal,
        oom_killed: false,
        disk_exceeded: false,
        memory_peak: None,
        at: Timestamp(0),
    };
    let codes =
        [0, 1, 2, 125, 126, 127, 128, 137, 139, 143, 255].map(|code| exit(Some(code), None));
    let signals = [1, 2, 6, 7, 9, 11, 15, 31, 34, 64].map(|signal| exit(None, Some(signal)));
    let causes = [
        Exit {
            oom_killed: true,
            ..exit(None, Some(9))
        },
        Exit {
            disk_exceeded: true,
            ..exit(None, Some(9))
        },
        exit(None, None),
    ];
    let all = codes.into_iter().chain(signals).chain(causes);
    let all: Vec<_> = all.map(|exit| exit.to_string()).collect();
    insta::assert_snapshot!(all.join("\n"));
}
