use super::*;

#[test]
fn a_controller_is_a_socket_or_an_https_address() {
    let network = |text: &str| Address::Network(text.to_owned());
    for (text, expected) in [
        ("/run/ctl.sock", Address::Socket("/run/ctl.sock".into())),
        ("ctl.sock", Address::Socket("ctl.sock".into())),
        ("https://10.0.0.1:7070", network("10.0.0.1:7070")),
        (
            "https://ctl.example.org:7070/",
            network("ctl.example.org:7070"),
        ),
        ("https://[fd00::1]:7070", network("[fd00::1]:7070")),
    ] {
        assert_eq!(text.parse::<Address>().unwrap(), expected);
    }
    for bad in [
        "http://10.0.0.1:7070",
        "https://",
        "https://host",
        "https://:1",
        "https://host:x",
        "ftp://a:1",
    ] {
        assert!(
            bad.parse::<Address>()
                .unwrap_err()
                .contains("https://HOST:PORT"),
            "{bad}"
        );
    }
}

#[test]
fn ids_differ_by_start() {
    let (one, other) = (Controller::local("s".into()), Controller::local("s".into()));
    assert_eq!(one.balancer_id().unwrap(), one.balancer_id().unwrap());
    assert_ne!(one.balancer_id().unwrap(), other.balancer_id().unwrap());
}
