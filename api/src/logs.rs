//! Processes' output: which part of it a request asks for, and its lines with stream and time.
//!
//! An agent sends lines as the Container Runtime Interface stores them: `<time> <stream> <P|F> <text>`. `P` marks a piece
//! of a line that continues with the next piece of its stream.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use crate::{
    ids::ProcessId,
    units::{Span, Timestamp},
};

/// In place of a time that is not known.
const UNKNOWN_TIME: &str = "-";

/// The oldest line that a request asks for: a length of time before now, or a point in time. Read from text such as `10m`
/// or RFC 3339 such as `2026-07-01T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This long before the request, by the clock of the process's worker.
    Ago(Span),
    /// This point in time.
    At(Timestamp),
}

impl Since {
    /// The point in time, for a request that arrives at `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => Timestamp(now.0.saturating_sub(span.as_millis())),
            Self::At(time) => time,
        }
    }
}

impl FromStr for Since {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = humantime::parse_duration(text) {
            return Ok(Self::Ago(Span(span)));
        }
        parse_time(text).map(Self::At).ok_or_else(|| {
            format!(
                "{text:?} is neither a duration such as \"10m\" nor a time of RFC 3339 with its offset from UTC, such as \
                 \"2026-07-01T12:00:00Z\" or \"2026-07-01T14:00:00+02:00\""
            )
        })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without blanks: it becomes part of a URL.
            Self::Ago(span) => write!(f, "{}ms", span.as_millis()),
            Self::At(time) => f.write_str(&format_time(*time)),
        }
    }
}

impl Serialize for Since {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// RFC 3339 with milliseconds, in UTC.
pub fn format_time(time: Timestamp) -> String {
    // The year 9999, beyond which RFC 3339 ends.
    const LAST_MS: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(time.0.min(LAST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// Reads RFC 3339, with `Z` or an offset.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (local, offset_minutes) = split_offset(text)?;
    // A time of day ends with a digit.
    if !local.ends_with(|end: char| end.is_ascii_digit()) {
        return None;
    }
    let local = local.replacen(['t', ' '], "T", 1);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let local = i64::try_from(local.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    let utc = local.checked_sub(offset_minutes * 60_000)?;
    u64::try_from(utc).ok().map(Timestamp)
}

/// Date and time of day, and the offset from UTC in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let at = text.len().checked_sub("+00:00".len())?;
    let (local, offset) = (text.get(..at)?, text.get(at..)?);
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let number = |digits: &str, most: i64| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = digits.parse().ok()?;
        (is_number && number <= most).then_some(number)
    };
    Some((
        local,
        sign * (number(hours, 23)? * 60 + number(minutes, 59)?),
    ))
}

/// One of a process's two streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line of output, or a piece of one, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the line was completed, as far as that is known.
    pub time: Option<Timestamp>,
    /// The stream that it was written to.
    pub stream: OutputStream,
    /// Whether a newline follows.
    pub is_complete: bool,
    /// The bytes, which need not be UTF-8.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// The time as text, `-` if it is unknown.
    pub fn time_text(&self) -> String {
        self.time
            .map_or_else(|| UNKNOWN_TIME.to_owned(), format_time)
    }

    /// Appends the line as the Container Runtime Interface stores it, with a newline.
    pub fn write_cri(&self, to: &mut Vec<u8>) {
        let tag = if self.is_complete { 'F' } else { 'P' };
        let head = format!("{} {} {tag} ", self.time_text(), self.stream.name());
        to.extend_from_slice(head.as_bytes());
        to.extend_from_slice(self.text);
        to.push(b'\n');
    }

    /// Reads what [`Self::write_cri`] wrote, without the newline.
    pub fn read_cri(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let time = match time {
            UNKNOWN_TIME => None,
            time => Some(parse_time(time)?),
        };
        let stream = match parts.next()? {
            b"stdout" => OutputStream::Stdout,
            b"stderr" => OutputStream::Stderr,
            _ => return None,
        };
        let is_complete = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let text = parts.next()?;
        Some(Self {
            time,
            stream,
            is_complete,
            text,
        })
    }
}

/// Writes lines as text, each with its time before it if that is wanted.
#[derive(Debug, Default)]
pub struct TextWriter {
    has_times: bool,
    /// The stream of the last piece, if its line is not complete.
    open: Option<OutputStream>,
}

impl TextWriter {
    /// Writes with times or without.
    pub fn new(has_times: bool) -> Self {
        Self {
            has_times,
            open: None,
        }
    }

    /// Appends a line, or a piece of one. Pieces of a line are joined, unless another stream's line comes between.
    pub fn write(&mut self, line: &Line<'_>, to: &mut Vec<u8>) {
        if self.open.is_some_and(|open| open != line.stream) {
            to.push(b'\n');
            self.open = None;
        }
        if self.has_times && self.open.is_none() {
            to.extend_from_slice(line.time_text().as_bytes());
            to.push(b' ');
        }
        to.extend_from_slice(line.text);
        if line.is_complete {
            to.push(b'\n');
        }
        self.open = (!line.is_complete).then_some(line.stream);
    }
}

/// Output that a node keeps of a process that it has removed: element of the agent's `GET /v1/services/{name}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptOutput {
    /// The process.
    pub id: ProcessId,
    /// When it was removed from the node.
    pub removed_at: Timestamp,
}

#[cfg(test)]
mod tests;
