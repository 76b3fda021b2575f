use super::*;
use crate::settings::parse;

fn config(text: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"a\"\nconcurrency = 1\n{text}");
    parse("a", &text).map_err(|error| error.to_string())
}

fn http_port(text: &str) -> Option<u16> {
    config(text).unwrap().http_port().map(|it| it.port.port)
}

#[test]
fn requests_go_to_the_port_named_http_or_the_only_one() {
    assert_eq!(http_port("port = 80"), Some(80));
    assert_eq!(http_port("ports = { web = 81 }"), Some(81));
    assert_eq!(http_port("ports = { http = 82, metrics = 9090 }"), Some(82));
    assert_eq!(http_port("port = 83\nports = { metrics = 9090 }"), Some(83));
    assert_eq!(http_port("ports = { a = 1, b = 2 }"), None);
    let tcp = "ports = { db = { port = 5432, protocol = \"tcp\" } }";
    assert_eq!(http_port(tcp), None);
    assert_eq!(http_port(""), None);
}

#[test]
fn the_main_port_is_one_that_can_be_connected_to_where_there_is_one() {
    let ports =
        "ports = { a = { port = 53, protocol = \"udp\" }, b = { port = 54, protocol = \"tcp\" } }";
    assert_eq!(config(ports).unwrap().main_port().unwrap().port.port, 54);
    let udp = "ports = { a = { port = 53, protocol = \"udp\" } }";
    assert_eq!(config(udp).unwrap().main_port().unwrap().port.port, 53);
    assert_eq!(config("").unwrap().main_port(), None);
}

#[test]
fn a_port_reads_and_prints_in_both_forms() {
    let text = "ports = { http = 80, dns = { port = 53, protocol = \"udp\" } }";
    let config = config(text).unwrap();
    let json = serde_json::to_value(&config).unwrap();
    let expected =
        serde_json::json!({"http": {"port": 80}, "dns": {"port": 53, "protocol": "udp"}});
    assert_eq!(json["ports"], expected);
    let again: ServiceConfig = serde_json::from_value(json).unwrap();
    assert_eq!(again, config);
}

#[test]
fn ports_that_cannot_be_are_refused_by_name() {
    let cases = [
        ("port = 0", "0 is not a port"),
        ("ports = { a = 0 }", "0 is not a port"),
        ("ports = { a = 65536 }", "a port from 1 to 65535"),
        ("ports = { a = -1 }", "a port from 1 to 65535"),
        ("ports = { a = \"x\" }", "a port from 1 to 65535"),
        ("ports = { A = 1 }", "port name"),
        ("ports = { a = { port = 1, protocol = \"sctp\" } }", "sctp"),
        ("ports = { a = { port = 1, prot = \"tcp\" } }", "prot"),
        ("port = 80\nports = { http = 81 }", "write only one of them"),
        (
            "port = 80\nports = { b = 80 }",
            "is the port \"http\" already",
        ),
        ("ports = { a = 1, b = 1 }", "is the port \"a\" already"),
        ("hosts = [\"a.b\"]", "no port gets requests"),
        (
            "path_prefix = \"/x\"\nports = { a = 1, b = 2 }",
            "no port gets requests",
        ),
        ("health = { http = \"/x\" }", "no TCP port to connect to"),
        ("health = { tcp = true }", "no TCP port to connect to"),
        ("ports = { a = { port = 1, health = {} } }", "write either"),
        (
            "ports = { a = { port = 1, health = { http = \"x\" } } }",
            "is not a path",
        ),
        (
            "ports = { a = { port = 1, protocol = \"udp\", health = { tcp = true } } }",
            "a UDP port has no answer",
        ),
    ];
    for (text, part) in cases {
        let error = config(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many: String = (0..=MAX_PORTS)
        .map(|n| format!("p{n} = {}, ", n + 1))
        .collect();
    let error = config(&format!("ports = {{ {} }}", many.trim_end_matches(", "))).unwrap_err();
    assert!(
        error.contains("65 ports are too many: the limit is 64"),
        "{error}"
    );
}

#[test]
fn one_number_may_be_tcp_and_udp() {
    let text =
        "ports = { a = { port = 53, protocol = \"tcp\" }, b = { port = 53, protocol = \"udp\" } }";
    config(text).unwrap();
}
