//! What an error of a configuration says, and how it is shown with its line.

use std::{fmt, ops::Range};

use super::collect::Fault;

/// Longest line that is shown with an error, in characters.
const MAX_SHOWN: usize = 160;

/// Text of a static configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// Name of the file (or of the request's part) that holds the text.
    pub file: String,
    /// Line from 1, where it is known.
    pub line: Option<usize>,
    /// Column from 1, where it is known.
    pub column: Option<usize>,
    /// What is wrong and what to write instead, in one line.
    pub message: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.message)
    }
}

/// Every error of one text; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors {
    first: SettingsError,
    others: Vec<SettingsError>,
    /// Of each error, the line it is about.
    shown: Vec<Option<Excerpt>>,
}

impl SettingsErrors {
    /// One error of the text as a whole.
    pub fn whole(file: &str, message: impl Into<String>) -> Self {
        let first = SettingsError {
            file: file.to_owned(),
            line: None,
            column: None,
            message: message.into(),
        };
        first.into()
    }

    pub(super) fn new(file: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.span.as_ref().map_or(usize::MAX, |span| span.start));
        let shown = faults.iter().map(|fault| {
            let span = fault.span.clone()?;
            Some(Excerpt::of(text, span))
        });
        let shown = shown.collect();
        let mut errors = faults.into_iter().map(|fault| {
            let position = fault.span.map(|span| position(text, span.start));
            SettingsError {
                file: file.to_owned(),
                line: position.map(|(line, _)| line),
                column: position.map(|(_, column)| column),
                message: match fault.key {
                    Some(key) => format!("{key}: {}", fault.message),
                    None => fault.message,
                },
            }
        });
        match errors.next() {
            Some(first) => Self {
                first,
                others: errors.collect(),
                shown,
            },
            None => Self::whole(file, "the configuration cannot be read"),
        }
    }

    /// Each error, ordered by its place in the text.
    pub fn iter(&self) -> impl Iterator<Item = &SettingsError> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The first error alone.
    pub fn into_first(self) -> SettingsError {
        self.first
    }

    /// Several lines for a person: each error with the line of the text that it is about.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for (error, excerpt) in self.iter().zip(&self.shown) {
            report += &format!("{error}\n");
            if let Some(excerpt) = excerpt {
                report += &format!("{excerpt}\n");
            }
        }
        report.truncate(report.trim_end().len());
        report
    }
}

impl fmt::Display for SettingsErrors {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self.iter().map(ToString::to_string).collect();
        f.write_str(&errors.join("; "))
    }
}

impl std::error::Error for SettingsErrors {}

impl From<SettingsError> for SettingsErrors {
    fn from(first: SettingsError) -> Self {
        Self {
            first,
            others: Vec::new(),
            shown: vec![None],
        }
    }
}

/// A value that can be read and yet is wrong, with the key it stands under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as written in the file; dotted for nested keys.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
    /// Other keys whose values make this one wrong.
    pub depends_on: Vec<String>,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            depends_on: Vec::new(),
        }
    }

    /// The same, where the value is wrong only because of that of another key.
    #[must_use]
    pub fn depending_on(mut self, key: impl Into<String>) -> Self {
        self.depends_on.push(key.into());
        self
    }
}

/// A line of a text, and what is marked in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: usize,
    text: String,
    /// In characters.
    marked: Range<usize>,
}

impl Excerpt {
    fn of(text: &str, span: Range<usize>) -> Self {
        let (line, column) = position(text, span.start);
        let start = text[..text.floor_char_boundary(span.start)]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let end = text[start..]
            .find('\n')
            .map_or(text.len(), |length| start + length);
        let until = text.floor_char_boundary(span.end.clamp(start, end));
        let columns = text[start..until].chars().count();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = text[start..end]
            .chars()
            .map(printable)
            .take(MAX_SHOWN)
            .collect();
        Self {
            line,
            text: shown.trim_end().to_owned(),
            marked: column - 1..columns.max(column),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        write!(f, " {margin} |\n {number} | {}", self.text)?;
        if self.marked.start < MAX_SHOWN {
            let before = " ".repeat(self.marked.start);
            let length = self.marked.end.min(MAX_SHOWN) - self.marked.start;
            write!(f, "\n {margin} | {before}{}", "^".repeat(length.max(1)))?;
        }
        Ok(())
    }
}

/// Line and column (from 1) of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
