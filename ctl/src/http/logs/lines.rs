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
mod tests;
