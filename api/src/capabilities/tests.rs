use super::*;
use crate::{service::ServiceConfig, settings::parse};

fn read(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"hello\"\nconcurrency = 6\nport = 8080\n{more}");
    parse("hello.toml", &text).map_err(|error| error.to_string())
}

#[test]
fn capabilities_keep_their_value_through_json() {
    for (text, json) in [
        (
            "[\"KILL\", \"CAP_CHOWN\", \"KILL\"]",
            "[\"CHOWN\",\"KILL\"]",
        ),
        ("[]", "[]"),
        (
            "[\"NET_BIND_SERVICE\", \"CHOWN\", \"SETUID\", \"SETGID\", \"FOWNER\", \"DAC_OVERRIDE\"]",
            "\"web\"",
        ),
    ] {
        let caps = read(&format!("caps = {text}")).unwrap().caps;
        assert_eq!(serde_json::to_string(&caps).unwrap(), json);
        assert_eq!(serde_json::from_str::<Capabilities>(json).unwrap(), caps);
    }
}

#[test]
fn a_capability_that_cannot_be_granted_is_refused() {
    for (more, part) in [
        (
            "caps = \"wbe\"",
            "hello.toml:4:8: caps: \"wbe\" is not a set",
        ),
        ("caps = [\"CHWON\"]", "did you mean \"CHOWN\"?"),
        (
            "caps = [\"SYS_ADMIN\"]",
            "\"SYS_ADMIN\" is granted to no service",
        ),
        (
            "caps = [\"net_raw\"]",
            "\"net_raw\" is granted to no service",
        ),
        ("caps = [\"XYZZY\"]", "the choice is CHOWN, "),
        ("caps = 7", "\"web\" or a list"),
    ] {
        let message = read(more).unwrap_err();
        assert!(message.starts_with("hello.toml:4:"), "{message}");
        assert!(message.contains(part), "{more}: {message}");
    }
}

#[test]
fn every_capability_of_the_kernel_is_either_granted_or_refused() {
    assert_eq!(
        GRANTED.len() + REFUSED.len(),
        41,
        "capability.h of Linux 6.18"
    );
    assert!(WEB.iter().all(|name| GRANTED.contains(name)));
}
