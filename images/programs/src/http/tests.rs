use super::*;

fn head(text: &str) -> io::Result<Option<Head>> {
    Head::read(&mut text.as_bytes())
}

#[test]
fn a_head_is_parsed() {
    let head = head("GET /slow?x=1&ms=20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nrest");
    let head = head.unwrap().unwrap();
    assert_eq!((head.method.as_str(), head.path.as_str()), ("GET", "/slow"));
    assert_eq!(head.parameter("ms"), Some("20"));
    assert_eq!(head.header("HOST"), Some("a"));
    assert!(!head.wants_keep_alive());
}

#[test]
fn a_malformed_request_is_refused() {
    assert!(head("").unwrap().is_none());
    for bad in [
        "GET /\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "\u{1}",
    ] {
        assert_eq!(
            head(bad).unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "{bad:?}"
        );
    }
    let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES as usize));
    assert!(head(&endless).is_err());
}

#[test]
fn a_body_of_two_lengths_is_refused() {
    let text = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(head(text).unwrap().unwrap().body().is_err());
}
