use super::*;
use crate::settings::{parse, parse_all};

const HEAD: &str = "name = \"a\"\nconcurrency = 1\nport = 80\n";

fn config(more: &str) -> ServiceConfig {
    parse("x", &format!("{HEAD}{more}")).unwrap()
}

#[test]
fn what_a_container_cannot_have_is_refused_with_its_key() {
    for (more, part) in [
        (
            "working_dir = \"app\"",
            "working_dir: \"app\" is not a directory",
        ),
        ("working_dir = \"/a/../b\"", "working_dir: "),
        ("hostname = \"a b\"", "hostname: \"a b\" is not a host name"),
        ("stop_signal = \"SIGNONSENSE\"", "stop_signal: "),
        ("stop_signal = \"RTMIN+40\"", "stop_signal: "),
        ("stop_signal = \"RTMIN-1\"", "stop_signal: "),
        ("stop_signal = \"RTMAX+1\"", "stop_signal: "),
        ("ulimits = { nice = 1 }", "ulimits.nice: cannot be set"),
        ("ulimits = { core = 1 }", "ulimits.core: only 0"),
        (
            "ulimits = { nofile = { soft = 2, hard = 1 } }",
            "ulimits.nofile: the soft limit",
        ),
        ("ulimits = { nofile = -2 }", "write a number"),
        (
            "sysctls = { \"vm.max_map_count\" = \"262144\" }",
            "sysctls.vm.max_map_count: cannot be set",
        ),
        (
            "sysctls = { \"net.ipv4.ip_forward\" = \"1\" }",
            "sysctls.net.ipv4.ip_forward: cannot be set",
        ),
        (
            "sysctls = { \"kernel.sem\" = \"1\\n2\" }",
            "sysctls.kernel.sem: write the value",
        ),
        (
            "extra_hosts = { \"a b\" = \"10.0.0.1\" }",
            "extra_hosts: \"a b\"",
        ),
        ("extra_hosts = { a = \"b\" }", "extra_hosts"),
        ("dns = [\"127.0.0.1\"]", "dns: 127.0.0.1 is no server"),
        (
            "dns = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\"]",
            "dns: 4 name servers",
        ),
        ("entrypoint = [\"a\\u0000\"]", "entrypoint[0]: "),
    ] {
        let errors = parse_all::<ServiceConfig>("x", &format!("{HEAD}{more}")).unwrap_err();
        assert!(errors.to_string().contains(part), "{more}: {errors}");
    }
}

#[test]
fn limits_are_written_in_three_ways() {
    let config = config(
        "ulimits = { nofile = 1024, memlock = -1, stack = { soft = 1, hard = \"unlimited\" } }",
    );
    let limit = |name: &str| {
        let limit = config.ulimits[name];
        (limit.soft.0, limit.hard.0)
    };
    assert_eq!(limit("nofile"), (Some(1024), Some(1024)));
    assert_eq!(limit("memlock"), (None, None));
    assert_eq!(limit("stack"), (Some(1), None));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("x", &text).unwrap(), config);
}

#[test]
fn only_agents_that_know_a_key_get_it() {
    for (more, key) in [
        ("entrypoint = [\"a\"]", "entrypoint"),
        ("working_dir = \"/\"", "working_dir"),
        ("hostname = \"a\"", "hostname"),
        ("stop_signal = \"quit\"", "stop_signal"),
        ("ulimits = { nofile = 1 }", "ulimits"),
        ("sysctls = { \"net.core.somaxconn\" = \"1\" }", "sysctls"),
        ("extra_hosts = { a = \"10.0.0.1\" }", "extra_hosts"),
        ("dns = [\"10.0.0.1\"]", "dns"),
    ] {
        let keys: Vec<_> = config(more).agent_keys().collect();
        assert_eq!(keys, [key]);
    }
    let files = config("env_file = [\"x.env\"]");
    assert_eq!(files.for_agents().env_file, Vec::<String>::new());
}
