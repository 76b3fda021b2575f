use super::*;

#[test]
fn the_query_holds_the_options() {
    let mut logs = Logs {
        name: "a".to_owned(),
        follow: false,
        tail: None,
        since: None,
        timestamps: false,
        stream: Stream::Both,
    };
    assert_eq!(query(&logs, Format::Text), "stream=both");
    assert_eq!(query(&logs, Format::Json), "stream=both&format=json");
    logs.tail = Some(5);
    logs.follow = true;
    logs.stream = Stream::Stderr;
    logs.timestamps = true;
    for (since, sent) in [
        ("1h 30m", "5400000ms"),
        ("2026-07-01T14:00:00+02:00", "2026-07-01T12:00:00.000Z"),
    ] {
        logs.since = Some(since.parse().unwrap());
        let all = format!("stream=stderr&tail=5&follow=true&since={sent}&timestamps=true");
        assert_eq!(query(&logs, Format::Text), all);
    }
}

#[test]
fn lines_are_complete_however_they_arrive() {
    let mut lines = Lines::default();
    assert!(lines.push(b"hello-1 | a").is_empty());
    assert_eq!(
        lines.push(b"b\n\nhello-2 | c\nd"),
        [&b"hello-1 | ab"[..], b"", b"hello-2 | c"]
    );
    assert_eq!(lines.rest(), [b"d"]);
    assert_eq!(
        Lines::default().push(&vec![b'x'; MAX_LINE_BYTES + 1]).len(),
        1
    );
}

#[test]
fn the_process_of_a_line_is_named() {
    let of_service = object("hello-1 | a | b", None);
    assert_eq!(of_service, json!({ "process": "hello-1", "line": "a | b" }));
    let of_process = object("a | b", Some("hello-1"));
    assert_eq!(of_process, json!({ "process": "hello-1", "line": "a | b" }));
}

#[test]
fn names_cannot_change_the_path() {
    for wrong in ["../nodes", "a b", "", "A"] {
        assert_eq!(name(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
}
