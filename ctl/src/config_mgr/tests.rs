//! Every rule, with the exact message of its violation.

use std::path::Path;

use tucano_oci_distribution::client::{Credentials, Secret};

use super::*;

const CTL: &str = "[[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n";
const WORKER: &str = "[[topology]]\nkind = \"worker\"\nip = \"127.0.0.11\"\nname = \"w1\"\n";

/// A configuration of one controller and one worker, both on loopback, with `more` before its tables.
pub(crate) fn minimal(more: &str) -> Config {
    read(&format!("{more}\n{CTL}{WORKER}")).unwrap()
}

fn read(text: &str) -> Result<Config, String> {
    Config::parse("ctl.toml", Path::new("/etc/tucano"), text).map_err(|error| error.to_string())
}

fn node(kind: &str, ip: &str, more: &str) -> String {
    format!("[[topology]]\nkind = \"{kind}\"\nip = \"{ip}\"\n{more}\n")
}

#[test]
fn a_topology_suffices_and_defaults_are_as_documented() {
    let config = minimal("");
    assert_eq!(
        config.listen,
        [Listen::Address(([127, 0, 0, 1], 7070).into())]
    );
    assert_eq!(config.balancer.listen, [([127, 0, 0, 1], 8080).into()]);
    assert_eq!(config.data_dir, Path::new("/var/lib/tucano/ctl"));
    assert_eq!(config.planner, tucano_planner::Settings::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.topology.ctl.name.as_str(), "127.0.0.1");
    assert!(config.balancer.spawn && config.token.is_none());
}

#[test]
fn every_key_is_read() {
    let config = read(
        "data_dir = \"state\"\ndomain = \"apps.example\"\nlease = \"2s\"\ndrain = \"1s\"\nrebalance_after = \"3s\"\n\
         restart_attempts = 4\nrestart_backoff = \"1s\"\nrestart_grace = \"5s\"\nrestart_timeout = \"7s\"\n\
         crash_alert_after = 2\nrecovered_after = \"8s\"\nrevisions_kept = 6\ntoken = \"0123456789abcdef\"\n\
         agent_token = \"fedcba9876543210\"\nagent_token_overlap = \"1h\"\n\
         [api]\nlisten = [\"127.0.0.1:1\", \"10.0.0.1:2\", \"stdin\"]\ntls = \"off\"\n\
         names = [\"ctl.example.org\", \"10.0.0.2\"]\n\
         [balancer]\nlisten = \"0.0.0.0:80\"\nspawn = false\nprogram = \"bin/b\"\narguments = [\"--retries\", \"1\"]\n\
         [alerts]\nwebhooks = [\"https://alerts.example/x\"]\n\
         [limits]\nimage_bytes = \"1MiB\"\n\
         [[topology]]\nkind = \"ctl\"\nip = \"10.0.0.1\"\n\
         [[topology]]\nkind = \"worker\"\nip = \"10.0.0.11\"\nrestart = [\"ssh\", \"w\"]\n\
         [[topology]]\nkind = \"worker\"\nip = \"fd00::2\"\nrestart = \"exit 1\"\n",
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/tucano/state"));
    assert_eq!(
        config.balancer.program.as_deref(),
        Some(Path::new("/etc/tucano/bin/b"))
    );
    assert_eq!(config.listen.len(), 3);
    assert_eq!((config.tls, config.names.len()), (Some(Mode::Off), 2));
    assert_eq!(config.planner.lease, Span::secs(2));
    assert_eq!(config.limits.image_bytes.0, 1 << 20);
    let argv = |n: usize| config.topology.workers[n].restart.as_ref().unwrap().argv();
    assert_eq!(argv(0), ["ssh", "w"]);
    assert_eq!(argv(1), ["sh", "-c", "exit 1"]);
    assert!(!format!("{config:?}").contains("0123456789"));
}

#[test]
fn a_wrong_topology_is_explained() {
    let cases = [
        (
            String::new(),
            "ctl.toml: topology names no ctl: add [[topology]] with kind = \"ctl\" and the ip of the controller's node",
        ),
        (
            WORKER.to_owned(),
            "ctl.toml:2:8: topology names no ctl: add [[topology]] with kind = \"ctl\" and the ip of the controller's node",
        ),
        (
            format!("{CTL}{WORKER}{}", node("ctl", "127.0.0.2", "")),
            "ctl.toml:9:8: topology names 2 nodes of kind \"ctl\" (lines 2, 9): keep one and write kind = \"worker\" for the others",
        ),
        (
            format!("{CTL}{}", node("wroker", "127.0.0.2", "")),
            "ctl.toml:5:8: topology[1].kind: unknown value \"wroker\": did you mean \"worker\"?",
        ),
        (
            format!("{CTL}{}", node("worker", "10.0.0", "")),
            "ctl.toml:6:6: ip \"10.0.0\" is not an address: write for example \"10.0.0.11\"",
        ),
        (
            format!("{CTL}{}", node("worker", "0.0.0.0", "")),
            "ctl.toml:6:6: ip 0.0.0.0 is not the address of one node: write for example \"10.0.0.11\"",
        ),
        (
            format!("{CTL}{WORKER}{}", node("worker", "::ffff:127.0.0.11", "")),
            "ctl.toml:10:6: ip 127.0.0.11 is already used on line 6: every node of the topology needs its own",
        ),
        (
            format!(
                "{CTL}{WORKER}{}",
                node("worker", "127.0.0.12", "name = \"w1\"")
            ),
            "ctl.toml:11:8: name \"w1\" is already used on line 7: every node of the topology needs its own",
        ),
        (
            format!("{CTL}{}", node("worker", "127.0.0.12", "nmae = \"w1\"")),
            "ctl.toml:7:1: topology[1]: unknown key \"nmae\": did you mean \"name\"?",
        ),
        (
            format!("{CTL}{}", node("worker", "127.0.0.12", "restart = []")),
            "ctl.toml:5:8: restart names no program: write for example [\"ssh\", \"w1\", \"reboot\"]",
        ),
        (
            node("ctl", "127.0.0.1", "restart = \"reboot\""),
            "ctl.toml:2:8: restart has no meaning for the ctl node: the controller cannot restart itself; remove it",
        ),
        (
            node("ctl", "127.0.0.1", "labels = { zone = \"a\" }"),
            "ctl.toml:4:10: labels have no meaning for the ctl node, which runs no processes: remove them",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
    let bad_name = read(&format!(
        "{CTL}{}",
        node("worker", "127.0.0.12", "name = \"a b\"")
    ));
    assert!(
        bad_name
            .unwrap_err()
            .starts_with("ctl.toml:7:8: node name \"a b\" is not valid")
    );
    let bad_restart = read(&format!(
        "{CTL}{}",
        node("worker", "127.0.0.12", "restart = 3")
    ));
    assert!(
        bad_restart
            .unwrap_err()
            .contains("write the command as a list")
    );
}

#[test]
fn a_wrong_value_is_explained() {
    for (top, message) in [
        (
            "leese = \"1s\"",
            "ctl.toml:1:1: unknown key \"leese\": did you mean \"lease\"?",
        ),
        (
            "lease = \"1ms\"",
            "ctl.toml:1:1: lease: 1ms is out of range: write a duration from 100ms to 1h",
        ),
        (
            "lease = 3",
            "ctl.toml:1:9: lease: expected a duration with its unit, such as \"500ms\" or \"10s\", found 3",
        ),
        (
            "restart_attempts = 101",
            "ctl.toml:1:1: restart_attempts: 101 is out of range: write a number from 0 to 100",
        ),
        (
            "domain = \".x\"",
            "ctl.toml:1:1: domain: \".x\" is not a domain: write for example \"apps.example.org\", in lower case, without a leading dot",
        ),
        (
            "token = \"short\"",
            "ctl.toml:1:9: token: the token is too short: use at least 16 characters, for example of `openssl rand -hex 32`",
        ),
        (
            "token_file = \"no\"",
            "ctl.toml:1:14: token: cannot read /etc/tucano/no: No such file or directory (os error 2): create it, or give the token itself",
        ),
        (
            "token = \"0123456789abcdef\"\ntoken_file = \"no\"",
            "ctl.toml:2:14: token and token_file are both given: keep one of them",
        ),
        (
            "[api]\nlisten = \"localhost\"",
            "ctl.toml:2:10: api.listen: \"localhost\" is not an address and port: write for example \"127.0.0.1:7070\"",
        ),
        (
            "[api]\nlisten = []",
            "ctl.toml:2:10: api.listen is empty: write for example \"127.0.0.1:7070\"",
        ),
        (
            "[api]\nlisten = [\"stdin\", \"stdin\"]",
            "ctl.toml:2:10: api.listen names \"stdin\" twice: keep one",
        ),
        (
            "[api]\nlisten = \"10.0.0.1:7070\"",
            "ctl.toml:2:10: the API would listen on 10.0.0.1:7070 without a token: add token_file = \"...\" (or token = \"...\"), or listen on 127.0.0.1",
        ),
        (
            "[alerts]\nwebhooks = [\"ftp://x/s3cret\"]",
            "ctl.toml:2:13: alerts.webhooks: not a URL: write for example \"https://alerts.example.org/hook\"",
        ),
        (
            "[limits]\nuploads = 0",
            "ctl.toml:2:1: limits.uploads: 0 is out of range: write a number from 1 to 1000",
        ),
        (
            "[limits]\nprefetching_agents = 1001",
            "ctl.toml:2:1: limits.prefetching_agents: 1001 is out of range: write a number from 0 to 1000",
        ),
        (
            "[limits]\nbody_idle = \"0s\"",
            "ctl.toml:2:1: limits.body_idle: 0s is out of range: write a duration from 10ms to 1h",
        ),
        (
            "[balancer]\nspwan = true",
            "ctl.toml:2:1: balancer: unknown key \"spwan\": did you mean \"spawn\"?",
        ),
        ("{}", "ctl.toml: write TOML, not JSON"),
    ] {
        assert_eq!(
            read(&format!("{top}\n{CTL}{WORKER}")).unwrap_err(),
            message,
            "{top}"
        );
    }
}

#[test]
fn a_worker_on_another_machine_needs_a_token_for_its_agent() {
    let remote = format!("{CTL}{}", node("worker", "10.0.0.11", ""));
    let error = read(&remote).unwrap_err();
    assert!(
        error.starts_with("ctl.toml:6:6: worker 10.0.0.11 is on another machine"),
        "{error}"
    );
    assert!(read(&format!("agent_token = \"0123456789abcdef\"\n{remote}")).is_ok());
}

#[test]
fn every_limit_has_a_range() {
    let limits = serde_json::to_value(Limits::default()).unwrap();
    for (key, default) in limits.as_object().unwrap() {
        let outlandish = if default.is_string() {
            "\"0s\""
        } else {
            "9000000000000000000"
        };
        let error = read(&format!("[limits]\n{key} = {outlandish}\n{CTL}")).unwrap_err();
        assert!(error.contains(&format!("limits.{key}: ")), "{error}");
    }
}

#[test]
fn registries_are_read_and_their_secrets_redacted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), " from-a-file\n").unwrap();
    std::fs::write(directory.path().join("ca.pem"), "certificates").unwrap();
    let text = format!(
        "{CTL}[[registry]]\nhost = \"a.example:5000\"\nuser = \"me\"\npassword_file = \"secret\"\nca_file = \"ca.pem\"\n\
         [[registry]]\nhost = \"b\"\naddress = \"mirror.example\"\ntoken = \"s3cret\"\n\
         [[registry]]\nhost = \"localhost:1\"\nplain_http = true\n"
    );
    let config = Config::parse("ctl.toml", directory.path(), &text).unwrap();
    let [first, second, third] = config.registries.as_slice() else {
        panic!("{config:?}");
    };
    let password = Secret::new("from-a-file");
    let name = "me".to_owned();
    assert_eq!(first.credentials, Credentials::User { name, password });
    assert_eq!(first.authorities.as_deref(), Some(&b"certificates"[..]));
    assert_eq!(
        (first.address.as_str(), first.plain_http),
        ("a.example:5000", false)
    );
    assert_eq!(
        second.credentials,
        Credentials::Token(Secret::new("s3cret"))
    );
    assert_eq!(second.address, "mirror.example");
    assert_eq!(
        (&third.credentials, third.plain_http),
        (&Credentials::Anonymous, true)
    );
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("from-a-file"),
        "{shown}"
    );
}

#[test]
fn a_wrong_registry_is_explained() {
    for (keys, part) in [
        ("host = \"https://a\"", "is not a host"),
        ("host = \"A.example\"", "is not a host"),
        ("host = \"a:0\"", "is not a host"),
        ("host = \"a\"\naddress = \"a/b\"", "is not a host"),
        ("host = \"a\"\nuser = \"me\"", "user and password"),
        (
            "host = \"a\"\nuser = \"m:e\"\npassword = \"x\"",
            "not contain a colon",
        ),
        (
            "host = \"a\"\ntoken = \"s3cret\"\npassword = \"s3cret\"",
            "user and password",
        ),
        (
            "host = \"a\"\ntoken = \"s3cret\"\ntoken_file = \"x\"",
            "both given",
        ),
        ("host = \"a\"\ntoken_file = \"no\"", "/etc/tucano/no"),
        ("host = \"a\"\nca_file = \"no\"", "ca_file"),
        ("host = \"a\"\n[[registry]]\nhost = \"a\"", "listed twice"),
        ("host = \"a\"\nplian_http = true", "plain_http"),
    ] {
        let error = read(&format!("{CTL}[[registry]]\n{keys}\n")).unwrap_err();
        assert!(
            error.contains(part) && !error.contains("s3cret"),
            "{keys}: {error}"
        );
    }
}

#[test]
fn a_worker_is_found_by_name_else_by_address() {
    let topology = minimal("").topology;
    let ip = |text: &str| text.parse().unwrap();
    let name = "w1".parse().unwrap();
    assert!(topology.worker(Some(&name), ip("127.9.9.9")).is_some());
    assert!(topology.worker(None, ip("::ffff:127.0.0.11")).is_some());
    assert!(topology.worker(None, ip("127.0.0.1")).is_none());
    assert!(
        topology
            .worker(Some(&"w2".parse().unwrap()), ip("127.0.0.11"))
            .is_none()
    );
}

/// The package's configuration, with tokens that are there. Whole: with everything that is commented out, too.
fn packaged(whole: bool) -> Config {
    let directory = tempfile::tempdir().unwrap();
    for token in ["token", "agent-token"] {
        std::fs::write(directory.path().join(token), "0123456789abcdef").unwrap();
    }
    let text = include_str!("../../../dist/ctl/ctl.toml").replace("/etc/tucano/", "");
    let setting = |line: &str| {
        let shown = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        shown.filter(|_| whole).unwrap_or(line).to_owned()
    };
    let lines: Vec<String> = text.lines().map(setting).collect();
    Config::parse("ctl.toml", directory.path(), &lines.join("\n")).unwrap()
}

#[test]
fn the_packages_configuration_is_the_default_on_loopback_with_tokens() {
    let config = packaged(false);
    assert!(config.token.is_some() && config.agent_token.is_some());
    assert!(config.topology.workers.is_empty() && !config.balancer.spawn);
    let loopback = Listen::Address(([127, 0, 0, 1], 7070).into());
    assert_eq!(config.listen, [loopback]);
}

#[test]
fn what_the_packages_configuration_shows_in_comments_is_valid_and_the_default() {
    let config = packaged(true);
    assert_eq!(config.data_dir, minimal("").data_dir);
    assert_eq!(config.planner, tucano_planner::Settings::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.topology.workers.len(), 1);
    assert_eq!((config.tls, config.names.len()), (Some(Mode::On), 0));
}

#[test]
fn the_manual_page_has_every_limit() {
    let page = include_str!("../../../dist/man/tucano-ctl.toml.5");
    let limits = toml::Table::try_from(Limits::default()).unwrap();
    for key in limits.keys() {
        assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
    }
}

/// 5,000 workers and 10,000 services are within the defaults.
#[test]
fn a_large_cluster_meets_no_default_limit() {
    let nodes: String = (0..5_000)
        .map(|index| {
            let ip = format!(
                "10.{}.{}.{}",
                index / 65_536,
                index / 256 % 256,
                index % 256
            );
            let restart = "restart = [\"ssh\", \"root@console.example.org\", \"power\", \"reset\"]";
            node(
                "worker",
                &ip,
                &format!("name = \"worker-{index}\"\n{restart}"),
            )
        })
        .collect();
    let tokens = "token = \"0123456789abcdef\"\nagent_token = \"fedcba9876543210\"\n";
    let text = format!("{tokens}{}{nodes}", node("ctl", "10.9.0.1", ""));
    let config = read(&text).unwrap();
    assert_eq!(config.topology.workers.len(), 5_000);
    let limits = &config.limits;
    let (workers, services) = (5_000, 10_000);
    assert!(limits.services >= services);
    assert!(limits.registry_repositories >= services);
    // A report and a download of an image at once.
    assert!(limits.connections >= 2 * workers);
    assert!(limits.worker_connections >= workers);
    // The unit allows this many open files.
    assert!(limits.connections + limits.worker_connections < 65_536 / 2);
}

#[test]
fn no_node_has_an_address_that_a_service_can_have() {
    let tokens = "token = \"0123456789abcdef\"\nagent_token = \"fedcba9876543210\"\n";
    let nodes = format!(
        "{}{}",
        node("ctl", "10.9.0.1", ""),
        node("worker", "10.9.0.2", "")
    );
    let text = |subnet: &str| format!("{tokens}service_subnet = \"{subnet}\"\n{nodes}");
    let config = read(&text("10.10.0.0/16")).unwrap();
    let subnet = config.planner.service_subnet.to_string();
    assert_eq!(subnet, "10.10.0.0/16");
    let refused = read(&text("10.9.0.0/16")).unwrap_err().to_string();
    assert!(refused.contains("10.9.0.1 of node"), "{refused}");
    let refused = read(&text("10.9.0.0/30")).unwrap_err().to_string();
    assert!(refused.contains("not a network for services"), "{refused}");
}
