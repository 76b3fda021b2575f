use super::*;
use crate::http1::request::HeadLimits;

/// Host for the look-up, `Host` and target as forwarded.
type Found = (String, String, String);

fn of(line: &str, hosts: &[&str]) -> Result<Found, BadTarget> {
    let hosts: String = hosts
        .iter()
        .map(|host| format!("Host: {host}\r\n"))
        .collect();
    let mut head = format!("{line}\r\n{hosts}\r\n").into_bytes();
    let mut parser = RequestParser::default();
    let limits = HeadLimits {
        len: 1024,
        headers: 10,
    };
    parser.parse(&mut head, limits).unwrap().unwrap();
    let target = Target::of(&head, &parser)?;
    let text = |parts: &[&[u8]]| String::from_utf8(parts.concat()).unwrap();
    Ok((
        text(&[target.host]),
        text(&[target.host_header]),
        text(&[target.slash(), target.origin_form]),
    ))
}

fn target(uri: &str, hosts: &[&str]) -> Result<Found, BadTarget> {
    of(&format!("GET {uri} HTTP/1.1"), hosts)
}

fn found(host: &str, header: &str, target: &str) -> Result<Found, BadTarget> {
    Ok((host.to_owned(), header.to_owned(), target.to_owned()))
}

#[test]
fn hosts_are_cut_for_lookup_and_forwarded_unchanged() {
    for (header, host) in [
        ("hello.localhost", "hello.localhost"),
        ("Hello.LOCALHOST:8080", "Hello.LOCALHOST"),
        ("hello.localhost.", "hello.localhost"),
        ("hello.localhost.:80", "hello.localhost"),
        ("hello.localhost:", "hello.localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("a_b-c", "a_b-c"),
    ] {
        assert_eq!(target("/x?y=1", &[header]), found(host, header, "/x?y=1"));
    }
}

#[test]
fn an_absolute_target_overrides_the_host() {
    let uri = "http://Other.example:81/a?b";
    let expected = found("Other.example", "Other.example:81", "/a?b");
    assert_eq!(target(uri, &["hello.localhost"]), expected);
    assert_eq!(target("HTTP://a/", &["a"]), found("a", "a", "/"));
}

#[test]
fn http_1_0_needs_no_host_beside_an_absolute_target() {
    let old = |uri: &str| of(&format!("GET {uri} HTTP/1.0"), &[]);
    assert_eq!(old("http://a/b"), found("a", "a", "/b"));
    assert_eq!(old("/b"), Err(BadTarget::NoHost));
}

#[test]
fn an_absolute_target_without_path_is_the_root() {
    assert_eq!(target("http://a", &["a"]), found("a", "a", "/"));
    assert_eq!(target("http://a?b", &["a"]), found("a", "a", "/?b"));
}

#[test]
fn the_asterisk_belongs_to_options() {
    assert_eq!(of("OPTIONS * HTTP/1.1", &["a"]), found("a", "a", "*"));
}

#[test]
fn ambiguous_and_malformed_targets_are_refused() {
    for (uri, hosts, error) in [
        ("/", &[][..], BadTarget::NoHost),
        ("/", &["a", "a"], BadTarget::SeveralHosts),
        ("/", &[""], BadTarget::MalformedHost),
        ("/", &["."], BadTarget::MalformedHost),
        ("/", &["a.."], BadTarget::MalformedHost),
        ("/", &["a..:80"], BadTarget::MalformedHost),
        ("/", &["a..b"], BadTarget::MalformedHost),
        ("/", &[".a"], BadTarget::MalformedHost),
        ("/", &["..."], BadTarget::MalformedHost),
        ("http://a../", &["a"], BadTarget::MalformedHost),
        ("http:///a", &["a"], BadTarget::MalformedHost),
        ("http://a/", &[], BadTarget::NoHost),
        ("/", &[":80"], BadTarget::MalformedHost),
        ("/", &["a:port"], BadTarget::MalformedHost),
        ("/", &["a:+80"], BadTarget::MalformedHost),
        ("/", &["a:99999"], BadTarget::MalformedHost),
        ("/", &["a:80:80"], BadTarget::MalformedHost),
        ("/", &["::1"], BadTarget::MalformedHost),
        ("/", &["[::1"], BadTarget::MalformedHost),
        ("/", &["::1]"], BadTarget::MalformedHost),
        ("/", &["[::1]x"], BadTarget::MalformedHost),
        ("/", &["[::1%eth0]"], BadTarget::MalformedHost),
        ("/", &["[a]"], BadTarget::MalformedHost),
        ("/", &["a b"], BadTarget::MalformedHost),
        ("/", &["a/b"], BadTarget::MalformedHost),
        ("/", &["a,b"], BadTarget::MalformedHost),
        ("/", &["é"], BadTarget::MalformedHost),
        ("/", &["user@a"], BadTarget::MalformedHost),
        ("http://user@a/", &["a"], BadTarget::MalformedHost),
        ("https://a/", &["a"], BadTarget::MalformedTarget),
        ("a:80", &["a"], BadTarget::MalformedTarget),
        ("*", &["a"], BadTarget::MalformedTarget),
    ] {
        assert_eq!(target(uri, hosts), Err(error), "{uri} {hosts:?}");
    }
    let long = "a".repeat(300);
    assert_eq!(target("/", &[&long]), Err(BadTarget::MalformedHost));
}
