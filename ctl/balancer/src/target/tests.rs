use super::*;

fn target(uri: &str, hosts: &[&str]) -> Result<Target, BadTarget> {
    let mut request = Request::builder().uri(uri);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    Target::of(&request.body(()).unwrap())
}

#[test]
fn hosts_are_normalised_for_lookup_and_forwarded_unchanged() {
    for (header, host) in [
        ("hello.localhost", "hello.localhost"),
        ("Hello.LOCALHOST:8080", "hello.localhost"),
        ("hello.localhost.", "hello.localhost"),
        ("hello.localhost.:80", "hello.localhost"),
        ("hello.localhost:", "hello.localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
    ] {
        let target = target("/x?y=1", &[header]).unwrap();
        assert_eq!(target.host, host);
        assert_eq!(target.host_header, header);
        assert_eq!(target.uri, "/x?y=1");
    }
}

#[test]
fn an_absolute_target_overrides_the_host() {
    let target = target("http://Other.example:81/a?b", &["hello.localhost"]).unwrap();
    assert_eq!(target.host, "other.example");
    assert_eq!(target.host_header, "Other.example:81");
    assert_eq!(target.uri, "/a?b");
}

#[test]
fn http_1_0_needs_no_host_beside_an_absolute_target() {
    let request = |uri: &str| {
        let request = Request::builder().version(Version::HTTP_10).uri(uri);
        Target::of(&request.body(()).unwrap())
    };
    assert_eq!(request("http://a/b").unwrap().host, "a");
    assert_eq!(request("/b"), Err(BadTarget::NoHost));
}

#[test]
fn an_absolute_target_without_path_is_the_root() {
    assert_eq!(target("http://a", &["a"]).unwrap().uri, "/");
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
        ("http://a/", &[], BadTarget::NoHost),
        ("/", &[":80"], BadTarget::MalformedHost),
        ("/", &["a:port"], BadTarget::MalformedHost),
        ("/", &["a:99999"], BadTarget::MalformedHost),
        ("/", &["a b"], BadTarget::MalformedHost),
        ("/", &["a/b"], BadTarget::MalformedHost),
        ("/", &["a,b"], BadTarget::MalformedHost),
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
