use super::*;

fn at(text: &str) -> Timestamp {
    match text.parse().unwrap() {
        Since::At(time) => time,
        Since::Ago(span) => panic!("{span}"),
    }
}

#[test]
fn points_in_time_are_read_with_their_offset() {
    let noon = 1_782_907_200_000;
    for text in [
        "2026-07-01T12:00:00Z",
        "2026-07-01T12:00:00.000Z",
        "2026-07-01t12:00:00z",
        "2026-07-01 12:00:00Z",
        "2026-07-01T14:00:00+02:00",
        "2026-07-01T06:30:00.0-05:30",
        "2026-07-01T12:00:00-00:00",
    ] {
        assert_eq!(at(text), Timestamp(noon), "{text}");
    }
    assert_eq!(at("2026-07-01T12:00:00.123456789Z").0, noon + 123);
}

#[test]
fn what_is_printed_before_a_line_is_read_by_since() {
    for ms in [0, 1, 1_782_907_200_123, 253_402_300_799_999] {
        assert_eq!(at(&format_time(Timestamp(ms))), Timestamp(ms));
    }
    assert_eq!(
        format_time(Timestamp(1_782_907_200_001)),
        "2026-07-01T12:00:00.001Z"
    );
    // Beyond the last year of RFC 3339.
    assert!(format_time(Timestamp(u64::MAX)).starts_with("9999-12-31"));
}

#[test]
fn durations_are_counted_back_from_now() {
    let now = Timestamp(10_000_000);
    for (text, ago) in [
        ("10m", 600_000),
        ("1h 30m", 5_400_000),
        ("1h30m", 5_400_000),
        ("0s", 0),
    ] {
        let since: Since = text.parse().unwrap();
        assert_eq!(since.at(now), Timestamp(now.0 - ago), "{text}");
        assert_eq!(since.to_string().parse(), Ok(since));
    }
    let beyond: Since = "100days".parse().unwrap();
    assert_eq!(beyond.at(now), Timestamp(0));
}

#[test]
fn a_time_without_an_offset_and_other_text_are_refused() {
    for text in [
        "",
        "10",
        "-10m",
        "yesterday",
        "1782907200",
        "2026-07-01",
        "2026-07-01T12:00:00",
        "2026-07-01T12:00:00+2",
        "2026-07-01T12:00:00+0200",
        "2026-07-01T12:00:00+24:00",
        "2026-07-01T12:00:00++1:00",
        "2026-13-01T12:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "2026-07-01T12:00:00ZZ",
        "2026-07-01T12:00:00é+02:00",
    ] {
        let error = text.parse::<Since>().unwrap_err();
        assert!(error.contains("RFC 3339"), "{error}");
    }
}

#[test]
fn text_has_each_line_once_with_its_time_before_it() {
    let line = |stream, is_complete, text| Line {
        time: Some(Timestamp(0)),
        stream,
        is_complete,
        text,
    };
    let written = |has_times| {
        let (mut writer, mut text) = (TextWriter::new(has_times), Vec::new());
        for line in [
            line(OutputStream::Stdout, true, &b"one"[..]),
            line(OutputStream::Stdout, false, b"tw"),
            line(OutputStream::Stdout, true, b"o"),
            line(OutputStream::Stdout, false, b"open"),
            line(OutputStream::Stderr, false, b"last"),
        ] {
            writer.write(&line, &mut text);
        }
        String::from_utf8(text).unwrap()
    };
    assert_eq!(written(false), "one\ntwo\nopen\nlast");
    let time = "1970-01-01T00:00:00.000Z ";
    assert_eq!(
        written(true),
        ["one\n", "two\n", "open\n", "last"]
            .map(|line| format!("{time}{line}"))
            .concat()
    );
}

#[test]
fn lines_keep_every_byte() {
    for (text, is_complete) in [(&b"a line"[..], true), (b"", true), (b" \xff P ", false)] {
        for time in [None, Some(Timestamp(1_782_907_200_001))] {
            let line = Line {
                time,
                stream: OutputStream::Stderr,
                is_complete,
                text,
            };
            let mut written = Vec::new();
            line.write_cri(&mut written);
            assert_eq!(written.pop(), Some(b'\n'));
            assert_eq!(Line::read_cri(&written), Some(line));
        }
    }
    for other in [
        "",
        "text",
        "- stdout",
        "- stdout F",
        "- stdin F x",
        "now stdout F x",
        "- stdout X x",
    ] {
        assert_eq!(Line::read_cri(other.as_bytes()), None, "{other}");
    }
}
