use super::*;

const LOOPBACK: &str = "127.0.0.1";

fn code(token: Option<&str>, local: &str, headers: &[(&'static str, &str)]) -> &'static str {
    let token = token.map(|token| Token::new(token).unwrap());
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )
        })
        .collect();
    match check(token.as_slice(), "token", local.parse().ok(), &headers) {
        Ok(()) => "ok",
        Err(error) if error.body.code == "unauthorized" => "unauthorized",
        Err(error) if error.body.code == "foreign_origin" => "foreign",
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn with_a_token_only_the_token_is_accepted() {
    let token = Some("0123456789abcdef");
    for (header, expected) in [
        ("Bearer 0123456789abcdef", "ok"),
        ("bearer  0123456789abcdef", "ok"),
        ("Bearer 0123456789abcdeX", "unauthorized"),
        ("Bearer", "unauthorized"),
        ("Basic 0123456789abcdef", "unauthorized"),
        // anyone:0123456789abcdef, anyone:wrong, and the token without a user
        ("Basic YW55b25lOjAxMjM0NTY3ODlhYmNkZWY=", "ok"),
        ("Basic YW55b25lOndyb25n", "unauthorized"),
        ("Basic MDEyMzQ1Njc4OWFiY2RlZg==", "unauthorized"),
    ] {
        for local in [LOOPBACK, "10.0.0.1"] {
            let headers = [("authorization", header), ("host", "any.example")];
            assert_eq!(code(token, local, &headers), expected, "{header}");
        }
    }
    assert_eq!(
        code(token, LOOPBACK, &[("host", "localhost")]),
        "unauthorized"
    );
}

#[test]
fn without_a_token_only_local_programs_are_accepted() {
    assert_eq!(
        code(None, "10.0.0.1", &[("host", "localhost")]),
        "unauthorized"
    );
    for host in [
        "localhost",
        "localhost:7070",
        "127.0.0.1:7070",
        "[::1]:7070",
        "127.0.0.9",
    ] {
        assert_eq!(code(None, LOOPBACK, &[("host", host)]), "ok", "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:7070",
        "10.0.0.1",
        "",
        "a b",
    ] {
        assert_eq!(code(None, LOOPBACK, &[("host", host)]), "foreign", "{host}");
    }
    assert_eq!(code(None, LOOPBACK, &[]), "foreign");
    for (name, value, expected) in [
        ("origin", "http://localhost:7070", "ok"),
        ("origin", "http://localhost:8080", "foreign"),
        ("origin", "https://evil.example", "foreign"),
        ("origin", "null", "foreign"),
        ("sec-fetch-site", "same-origin", "ok"),
        ("sec-fetch-site", "none", "ok"),
        ("sec-fetch-site", "cross-site", "foreign"),
        ("sec-fetch-site", "same-site", "foreign"),
    ] {
        let headers = [("host", "localhost:7070"), (name, value)];
        assert_eq!(code(None, LOOPBACK, &headers), expected, "{name}: {value}");
    }
}

#[test]
fn a_repeated_header_is_refused() {
    for name in ["host", "authorization"] {
        let mut headers = HeaderMap::new();
        let name = header::HeaderName::from_static(name);
        headers.append(&name, header::HeaderValue::from_static("one"));
        assert!(check_headers(&headers).is_ok());
        headers.append(&name, header::HeaderValue::from_static("two"));
        let error = check_headers(&headers).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
    }
}
