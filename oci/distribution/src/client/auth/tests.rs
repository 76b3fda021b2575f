use super::*;

fn remote(base: &str) -> Remote {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    Remote::new(super::super::Options {
        base: base.to_owned(),
        credentials: Credentials::Anonymous,
        authorities: None,
        only_those: false,
        silence: std::time::Duration::from_secs(1),
        proxies: false,
    })
    .unwrap()
}

#[test]
fn challenges_are_parsed() {
    let header = r#"Bearer realm="https://a/token",service="r, 1",scope="repository:x:pull,push""#;
    let challenges = parse(&format!("{header}, Basic realm=\"q\\\"q\""));
    assert_eq!(challenges.len(), 2);
    assert_eq!(challenges[0].get("realm"), Some("https://a/token"));
    assert_eq!(challenges[0].get("service"), Some("r, 1"));
    assert_eq!(challenges[0].get("scope"), Some("repository:x:pull,push"));
    assert_eq!(
        (challenges[1].scheme.as_str(), challenges[1].get("realm")),
        ("basic", Some("q\"q"))
    );
    assert_eq!(parse("Negotiate")[0].scheme, "negotiate");
    for odd in ["", ",", "=", "\"", "Bearer =", "a=b", "Bearer realm=\"x"] {
        parse(odd);
    }
}

#[test]
fn passwords_are_not_sent_without_tls() {
    let (tls, plain) = (remote("https://r.example"), remote("http://r.example:5000"));
    let url = |text: &str| -> Url { text.parse().unwrap() };
    assert!(check_realm(&tls, &url("https://auth.example/t")).is_ok());
    assert!(check_realm(&tls, &url("http://r.example/t")).is_err());
    assert!(check_realm(&plain, &url("http://r.example:5001/t")).is_ok());
    assert!(check_realm(&plain, &url("http://auth.example/t")).is_err());
    assert!(check_realm(&plain, &url("ftp://r.example/t")).is_err());
}

#[test]
fn secrets_are_not_printed() {
    let value = bearer(&remote("https://r.example"), "hush").unwrap();
    assert!(value.is_sensitive() && !format!("{value:?}").contains("hush"));
    let error = bearer(&remote("https://r.example"), "hush\n").unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hush"));
}
