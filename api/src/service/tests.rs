use super::*;
use crate::{
    ids::AppName,
    settings::{Validate, parse, parse_all},
    units::Bytes,
};

fn read(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"hello\"\nconcurrency = 6\nport = 8080\n{more}");
    parse("hello.toml", &text).map_err(|error| error.to_string())
}

#[test]
fn three_lines_are_enough_and_defaults_are_as_documented() {
    let config = read("").unwrap();
    assert_eq!(
        (config.memory, config.disk, config.pids, config.stop_timeout),
        (Bytes::mib(256), Bytes::mib(2048), 512, Span::secs(10))
    );
    assert_eq!(config.health.probe(), Probe::Tcp);
}

#[test]
fn every_key_is_read() {
    let config = read(
        "image = \"hello.tar\"\nhosts = [\"a.example\"]\npath_prefix = \"/x\"\nenv = { A = \"1\" }\nargs = [\"-v\"]\n\
         user = \"1000:1000\"\nmemory = \"64MiB\"\ndisk = \"1GiB\"\ncpus = 0.5\npids = 10\n\
         caps = \"web\"\nread_only = true\ntmp_size = \"8MiB\"\nshm_size = \"16MiB\"\ndrain = \"0s\"\nstop_timeout = \"1s\"\n\
         health = { http = \"/healthz\", host = \"www.example.org:8080\", headers = { X-Forwarded-Proto = \"https\" }, port = 9000, interval = \"500ms\", timeout = \"2s\", grace = \"1m\" }",
    )
    .unwrap();
    assert_eq!(config.memory, Bytes::mib(64));
    assert_eq!(config.health.probe(), Probe::Http("/healthz"));
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("json", &json).unwrap(), config);
}

#[test]
fn invalid_values_are_refused_with_advice() {
    for (more, part) in [
        ("hosts = [\"A b\"]", "host name"),
        ("path_prefix = \"x\"", "starts with '/'"),
        (
            "memory = \"1KiB\"",
            "1.0 KiB is out of range: write 4 MiB to 1 PiB",
        ),
        ("disk = \"1KiB\"", "1 MiB"),
        ("cpus = 0.0", "0.01"),
        ("pids = 0", "pids"),
        ("shm_size = \"1GiB\"", "4KiB to `memory`, 256.0 MiB"),
        ("read_only = true\ntmp_size = 0", "tmp_size: write a size"),
        ("tmp_size = \"1MiB\"", "read_only = true"),
        ("env = { \"A=B\" = \"1\" }", "variable"),
        ("health = { http = \"/\", exec = [\"x\"] }", "only one"),
        ("health = { exec = [] }", "name the program"),
        ("health = { interval = \"0s\" }", "10ms"),
        ("health = { host = \"a\" }", "health.host: has no effect"),
        ("health = { http = \"/\", host = \"a b\" }", "is not a host"),
        (
            "health = { http = \"/\", host = \"a\\r\\nX: y\" }",
            "is not a host",
        ),
        ("health = { headers = { A = \"b\" } }", "has no effect"),
        (
            "health = { http = \"/\", headers = { \"A b\" = \"c\" } }",
            "not the name of a header",
        ),
        (
            "health = { http = \"/\", headers = { hOst = \"c\" } }",
            "`host` sets Host",
        ),
        (
            "health = { http = \"/\", headers = { A = \"b\\r\\nc: d\" } }",
            "printable",
        ),
        ("health = { port = 0 }", "0 is not a port"),
        ("health = { exec = [\"x\"], port = 1 }", "has no effect"),
        ("memry = 1", "did you mean \"memory\""),
        (
            "health = { intervall = \"1s\" }",
            "did you mean \"interval\"",
        ),
    ] {
        let message = read(more).unwrap_err();
        assert!(message.contains(part), "{more}: {message}");
    }
    for (text, part) in [
        (
            "name = \"a\"\nconcurrency = 0\nport = 1",
            "a.toml:2:1: concurrency: 0 processes",
        ),
        (
            "name = \"a\"\nconcurrency = 1\nport = 0",
            "a.toml:3:1: port: 0 is not a port",
        ),
        ("name = \"../a\"\nconcurrency = 1\nport = 1", "a.toml:1:"),
    ] {
        let message = parse::<ServiceConfig>("a.toml", text)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with(part), "{message}");
    }
}

#[test]
fn a_change_of_routing_or_concurrency_keeps_the_processes() {
    let config = read("").unwrap();
    let scaled = ServiceConfig {
        concurrency: 2,
        hosts: vec!["a.b".into()],
        ..config.clone()
    };
    assert!(config.same_process(&scaled));
    let looser = ServiceConfig {
        caps: read("caps = \"web\"").unwrap().caps,
        ..config.clone()
    };
    assert!(!config.same_process(&looser));
}

#[test]
fn a_plain_configuration_relaxes_nothing() {
    let config = read("").unwrap();
    assert!(config.caps.is_empty() && !config.read_only);
    assert!(config.relaxed().is_empty());
    let stricter = "read_only = true\ntmp_size = \"1MiB\"\nshm_size = \"1MiB\"\npids = 5";
    assert!(read(stricter).unwrap().relaxed().is_empty());
}

#[test]
fn each_relaxation_is_listed_by_name() {
    let config = read("caps = \"web\"\npids = 600\nshm_size = \"128MiB\"").unwrap();
    let relaxed = config.relaxed();
    assert_eq!(relaxed, ["caps=web", "pids=600", "shm_size=128.0MiB"]);
    let config = read("caps = [\"cap_kill\", \"CHOWN\"]").unwrap();
    assert_eq!(config.relaxed(), ["caps=CHOWN,KILL"]);
}

#[test]
fn a_user_is_a_name_or_an_id_of_the_container() {
    for user in [
        "0",
        "1000",
        "65535",
        "65535:65535",
        "www-data",
        "app:app",
        "1000:",
        "app:",
        ":1000",
        "0:",
        "Ünicode",
        "user@example",
    ] {
        let config = read(&format!("user = {user:?}"));
        assert!(config.is_ok(), "{user:?}: {config:?}");
    }
    let long = "u".repeat(257);
    for user in [
        "-1",
        "+1",
        "65536",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "0:-1",
        "0:65536",
        "a b",
        "a\tb",
        "a/b",
        "a:b:c",
        &long,
        &"1".repeat(10_000),
    ] {
        let message = read(&format!("user = {user:?}")).unwrap_err();
        assert!(message.starts_with("hello.toml:4:1: user: "), "{message}");
        assert!(message.len() < 600, "{message}");
    }
}

#[test]
fn names_values_and_counts_are_bounded() {
    let name = "N".repeat(257);
    let value = "v".repeat(40_000);
    let many: Vec<_> = (0..4097).map(|n| format!("\"h{n}.a\"")).collect();
    for (more, part) in [
        (format!("env = {{ {name} = \"\" }}"), "256 bytes for a name"),
        (
            format!("hosts = [{}]", many.join(",")),
            "4097 entries are too many: the limit is 4096",
        ),
        (format!("args = [{}]", many.join(",")), "the limit is 4096"),
        ("stop_timeout = \"2h\"".to_owned(), "at most 1h"),
        ("drain = \"2h\"".to_owned(), "at most 1h"),
        ("path_prefix = \"/a b\"".to_owned(), "no spaces"),
    ] {
        let message = read(&more).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    assert!(read(&format!("env = {{ A = {value:?} }}")).is_ok());
}

/// A configuration that an earlier version took goes on running: agents check it by `validate` alone.
#[test]
fn rules_that_came_later_do_not_bind_what_is_stored() {
    let mut config = read("").unwrap();
    config.user = Some("4294967296".to_owned());
    assert!(config.validate().is_ok());
    assert_eq!(config.problems().len(), 1);
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "name = \"hello\"\nconcurrency = 0\nport = 0\nmemory = \"1KiB\"\nuser = \"-1\"\nhealth = { http = \"x\", interval = \"0s\" }\n";
    let errors = parse_all::<ServiceConfig>("hello.toml", text).unwrap_err();
    let places: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error.line,
                error
                    .message
                    .split(':')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            )
        })
        .collect();
    let expected = [
        (2, "concurrency"),
        (3, "port"),
        (4, "memory"),
        (5, "user"),
        (6, "health.http"),
        (6, "health.interval"),
    ];
    assert_eq!(
        places,
        expected.map(|(line, key)| (Some(line), key.to_owned()))
    );
}

#[test]
fn an_application_is_named_as_a_service_is_and_concerns_no_agent() {
    let (config, other) = (read("").unwrap(), read("app = \"shop\"").unwrap());
    assert_eq!(other.app.as_ref().map(AppName::as_str), Some("shop"));
    assert_eq!(other.for_agents(), config);
    assert!(!serde_json::to_string(&config).unwrap().contains("app"));
    for bad in ["", "Shop", "a/b", "-a", "a-", "../a"] {
        let error = read(&format!("app = {bad:?}")).unwrap_err().to_string();
        assert!(error.contains("application name"), "{error}");
    }
}

#[test]
fn the_drain_time_concerns_neither_processes_nor_agents() {
    let (config, other) = (read("").unwrap(), read("drain = \"5s\"").unwrap());
    assert_eq!((config.drain, other.drain), (None, Some(Span::secs(5))));
    assert!(config.same_process(&other));
    assert_eq!(other.for_agents(), config);
    let text = serde_json::to_string(&config).unwrap();
    assert!(!text.contains("drain"), "{text}");
}
