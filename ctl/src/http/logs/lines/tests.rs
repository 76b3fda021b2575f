use super::*;

fn written(form: Form, max_line_bytes: usize, has_times: bool, chunks: &[&str]) -> String {
    let mut reader = LineReader::new(has_times);
    let mut writer = LineWriter::new(form, &"a-1".parse().unwrap(), max_line_bytes);
    let mut text = Vec::new();
    for chunk in chunks {
        for line in reader.push(chunk.as_bytes()) {
            text.extend(writer.write(line));
        }
    }
    text.extend(writer.finish());
    String::from_utf8(text).unwrap()
}

const PREFIXED: Form = Form::Prefixed { has_times: false };
const BYTES: Form = Form::Bytes { has_times: false };

#[test]
fn each_line_is_prefixed_however_it_is_chunked() {
    let expected = "a-1 | one\na-1 | \na-1 | two\n";
    for chunks in [&["one\n\ntwo\n"][..], &["o", "ne", "\n\ntw", "o"]] {
        assert_eq!(written(PREFIXED, 100, false, chunks), expected);
    }
    assert_eq!(written(PREFIXED, 100, false, &[]), "");
    let cri = [
        "- stdout F one\n- std",
        "err F \n- stdout P tw\n- stdout F o\n",
    ];
    assert_eq!(written(PREFIXED, 100, true, &cri), expected);
    assert_eq!(written(BYTES, 100, true, &cri), "one\n\ntwo\n");
}

#[test]
fn a_long_line_is_cut_at_even_places_however_it_is_chunked() {
    let whole = "abcdefghij\nk\n";
    let expected = "a-1 | abcd\na-1 | efgh\na-1 | ij\na-1 | k\n";
    for size in 1..=whole.len() {
        let chunks: Vec<_> = whole.as_bytes().chunks(size).collect();
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        assert_eq!(written(PREFIXED, 4, false, &chunks), expected, "{size}");
        assert_eq!(written(BYTES, 4, false, &chunks), whole, "{size}");
    }
}

#[test]
fn a_line_of_exactly_the_limit_is_not_followed_by_an_empty_one() {
    assert_eq!(written(PREFIXED, 4, false, &["abcd\n"]), "a-1 | abcd\n");
    assert_eq!(
        written(PREFIXED, 4, false, &["abcdefgh\n"]),
        "a-1 | abcd\na-1 | efgh\n"
    );
    assert_eq!(written(PREFIXED, 4, false, &["abcd", "\n"]), "a-1 | abcd\n");
}

#[test]
fn characters_are_not_cut() {
    assert_eq!(
        written(PREFIXED, 4, false, &["aéüö\n"]),
        "a-1 | aé\na-1 | üö\n"
    );
    assert_eq!(
        written(PREFIXED, 4, false, &["🦀🦀\n"]),
        "a-1 | 🦀\na-1 | 🦀\n"
    );
    // Bytes that are no text are cut all the same.
    let mut cutter = Cutter::new(4);
    let line = |text: Vec<u8>| OwnedLine {
        time: None,
        stream: None,
        is_complete: true,
        text,
    };
    let lengths: Vec<_> = cutter
        .push(line(vec![0x80; 10]))
        .iter()
        .map(|line| line.text.len())
        .collect();
    assert_eq!(lengths, [4, 4, 2]);
}

#[test]
fn times_come_before_each_line_and_each_piece_once() {
    let time = "2026-07-01T12:00:00.001Z";
    let cri = format!("{time} stdout F abcdef\n- stderr F x\n");
    assert_eq!(
        written(Form::Prefixed { has_times: true }, 4, true, &[&cri]),
        format!("a-1 | {time} abcd\na-1 | {time} ef\na-1 | - x\n")
    );
    assert_eq!(
        written(Form::Bytes { has_times: true }, 4, true, &[&cri]),
        format!("{time} abcdef\n- x\n")
    );
}

#[test]
fn objects_have_what_is_known() {
    let time = "2026-07-01T12:00:00.001Z";
    let cri = format!("{time} stderr F abc\"ef\n- stdout P x\n");
    assert_eq!(
        written(Form::Json, 4, true, &[&cri]),
        format!(
            "{{\"process\":\"a-1\",\"time\":\"{time}\",\"stream\":\"stderr\",\"line\":\"abc\\\"\",\"partial\":true}}\n\
                 {{\"process\":\"a-1\",\"time\":\"{time}\",\"stream\":\"stderr\",\"line\":\"ef\"}}\n\
                 {{\"process\":\"a-1\",\"stream\":\"stdout\",\"line\":\"x\",\"partial\":true}}\n"
        )
    );
    assert_eq!(
        written(Form::Json, 9, false, &["x\n"]),
        "{\"process\":\"a-1\",\"line\":\"x\"}\n"
    );
}

#[test]
fn an_answer_that_is_malformed_is_shown_as_it_is() {
    assert_eq!(written(PREFIXED, 99, true, &["what\n"]), "a-1 | what\n");
    let endless = "x".repeat(MAX_ANSWER_LINE_BYTES + 1);
    assert_eq!(LineReader::new(true).push(endless.as_bytes()).len(), 1);
}

#[test]
fn the_open_lines_of_both_streams_are_not_mixed() {
    let cri = ["- stdout P a\n- stderr F x\n- stdout F b\n"];
    assert_eq!(
        written(PREFIXED, 99, true, &cri),
        "a-1 | a\na-1 | x\na-1 | b\n"
    );
    assert_eq!(written(BYTES, 99, true, &cri), "a\nx\nb\n");
}
