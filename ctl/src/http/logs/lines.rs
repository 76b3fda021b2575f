//! Lines of output: read from an agent's answer, written for the client.

use bytes::Bytes;
use serde::Serialize;
use tucano_api::{
    ids::ProcessId,
    logs::{Line, OutputStream, TextWriter},
    units::Timestamp,
};

/// Longest line of an agent's answer; agents send longer ones in pieces.
const MAX_ANSWER_LINE_BYTES: usize = 2 << 20;

/// A line, or a piece of one, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnedLine {
    pub(super) time: Option<Timestamp>,
    /// None from an agent of an earlier version.
    pub(super) stream: Option<OutputStream>,
    pub(super) is_complete: bool,
    pub(super) text: Vec<u8>,
}

/// Reads the lines of an agent's answer.
#[derive(Debug)]
pub(super) struct LineReader {
    has_times: bool,
    rest: Vec<u8>,
}

impl LineReader {
    /// The answer has times and streams, or plain text of an agent of an earlier version.
    pub(super) fn new(has_times: bool) -> Self {
        Self {
            has_times,
            rest: Vec::new(),
        }
    }

    /// The lines that this chunk completes. Plain text is passed on at once, in pieces.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<OwnedLine> {
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            let is_whole = part.ends_with(b"\n");
            if is_whole || !self.has_times || self.rest.len() > MAX_ANSWER_LINE_BYTES {
                let text = std::mem::take(&mut self.rest);
                lines.push(self.line(text));
            }
        }
        lines
    }

    fn line(&self, mut text: Vec<u8>) -> OwnedLine {
        let is_complete = text.pop_if(|byte| *byte == b'\n').is_some();
        match Line::read_cri(&text).filter(|_| self.has_times && is_complete) {
            Some(line) => OwnedLine {
                time: line.time,
                stream: Some(line.stream),
                is_complete: line.is_complete,
                text: line.text.to_vec(),
            },
            None => OwnedLine {
                time: None,
                stream: None,
                is_complete,
                text,
            },
        }
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As the process wrote them.
    Bytes { has_times: bool },
    /// Each with its process before it.
    Prefixed { has_times: bool },
    /// As JSON objects.
    Json,
}

/// Writes the lines of one process.
#[derive(Debug)]
pub(super) struct LineWriter {
    form: Form,
    process: String,
    text: TextWriter,
    cutter: Cutter,
}

impl LineWriter {
    /// Lines longer than `max_line_bytes` are cut, except for [`Form::Bytes`].
    pub(super) fn new(form: Form, process: &ProcessId, max_line_bytes: usize) -> Self {
        Self {
            form,
            process: process.to_string(),
            text: TextWriter::new(form == Form::Bytes { has_times: true }),
            cutter: Cutter::new(max_line_bytes),
        }
    }

    /// The text for lines.
    pub(super) fn write_all(&mut self, lines: Vec<OwnedLine>) -> Bytes {
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(&self.write(line));
        }
        text.into()
    }

    /// The text for a line. Empty if the line is not complete yet.
    pub(super) fn write(&mut self, line: OwnedLine) -> Bytes {
        let mut text = Vec::new();
        if let Form::Bytes { .. } = self.form {
            let line = Line {
                time: line.time,
                stream: line.stream.unwrap_or(OutputStream::Stdout),
                is_complete: line.is_complete,
                text: &line.text,
            };
            self.text.write(&line, &mut text);
        } else {
            for line in self.cutter.push(line) {
                self.write_whole(&line, &mut text);
            }
        }
        text.into()
    }

    /// The text for an incomplete last line.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut text = Vec::new();
        if let Some(line) = self.cutter.take_rest() {
            self.write_whole(&line, &mut text);
        }
        text.into()
    }

    fn write_whole(&self, line: &OwnedLine, to: &mut Vec<u8>) {
        if self.form == Form::Json {
            let object = JsonLine {
                process: &self.process,
                time: line.time.map(tucano_api::logs::format_time),
                stream: line.stream,
                line: String::from_utf8_lossy(&line.text),
                partial: !line.is_complete,
            };
            // Numbers and text are always written.
            to.extend(serde_json::to_vec(&object).unwrap_or_default());
        } else {
            to.extend_from_slice(self.process.as_bytes());
            to.extend_from_slice(b" | ");
            let line = Line {
                time: line.time,
                stream: OutputStream::Stdout,
                is_complete: false,
                text: &line.text,
            };
            let has_times = self.form == Form::Prefixed { has_times: true };
            TextWriter::new(has_times).write(&line, to);
        }
        to.push(b'\n');
    }
}

/// A line as JSON.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    process: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<OutputStream>,
    line: std::borrow::Cow<'a, str>,
    /// The line continues with the next object of its process and stream.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// Joins pieces of lines, and cuts lines that are too long at even places.
#[derive(Debug)]
struct Cutter {
    max_bytes: usize,
    open: Option<OwnedLine>,
}

impl Cutter {
    fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            open: None,
        }
    }

    fn push(&mut self, mut line: OwnedLine) -> Vec<OwnedLine> {
        let mut whole = Vec::new();
        if let Some(mut open) = self.open.take() {
            if open.stream == line.stream {
                open.text.append(&mut line.text);
                line.text = open.text;
            } else {
                whole.push(open);
            }
        }
        while line.text.len() > self.max_bytes {
            let rest = line.text.split_off(self.cut(&line.text));
            let piece = OwnedLine {
                text: std::mem::replace(&mut line.text, rest),
                is_complete: false,
                ..line
            };
            whole.push(piece);
        }
        if line.is_complete {
            whole.push(line);
        } else {
            self.open = Some(line);
        }
        whole
    }

    /// The longest beginning that ends with a whole character.
    fn cut(&self, text: &[u8]) -> usize {
        let is_start = |index: &usize| text[*index] & 0b1100_0000 != 0b1000_0000;
        let nearby = self.max_bytes.saturating_sub(3).max(1)..=self.max_bytes;
        nearby.rev().find(is_start).unwrap_or(self.max_bytes)
    }

    fn take_rest(&mut self) -> Option<OwnedLine> {
        self.open.take()
    }
}

#[cfg(test)]
mod tests {
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
}
