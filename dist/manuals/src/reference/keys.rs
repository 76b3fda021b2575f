//! What the book says of a key of a configuration file.

use std::fmt::Write as _;

/// Longest line of a page, where a word allows it.
const WIDTH: usize = 100;

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// With its tables, dotted: `health.interval`.
    pub(super) name: &'static str,
    /// As it is written in the file; empty where there is none.
    pub(super) default: &'static str,
    /// What is allowed.
    pub(super) bounds: Bounds,
    /// What it is for: whole sentences.
    pub(super) meaning: &'static str,
    /// What a change of it does, where the page does not say it for all.
    pub(super) change: &'static str,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bounds {
    /// As the meaning says.
    Free,
    /// Two values, as they are written in the file: the least and the most.
    Between(&'static str, &'static str),
    /// The least value.
    AtLeast(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
}

impl Bounds {
    fn describe(self) -> String {
        match self {
            Self::Free => String::new(),
            Self::Between(least, most) => format!("`{least}` to `{most}`"),
            Self::AtLeast(least) => format!("at least `{least}`"),
            Self::OneOf(values) => {
                let quoted: Vec<String> = values.iter().map(|it| format!("`{it}`")).collect();
                quoted.join(", ")
            }
        }
    }

    /// Values that must be taken.
    #[cfg(test)]
    pub(super) fn accepted(self) -> Vec<&'static str> {
        match self {
            Self::Free => Vec::new(),
            Self::Between(least, most) => vec![least, most],
            Self::AtLeast(least) => vec![least],
            Self::OneOf(values) => values.to_vec(),
        }
    }

    /// Values that must be refused: one step outside.
    #[cfg(test)]
    pub(super) fn refused(self) -> Vec<String> {
        let (least, most) = match self {
            Self::Between(least, most) => (Some(least), Some(most)),
            Self::AtLeast(least) => (Some(least), None),
            Self::Free | Self::OneOf(_) => (None, None),
        };
        let below = least.and_then(|value| step(value, -1));
        let above = most.and_then(|value| step(value, 1));
        below.into_iter().chain(above).collect()
    }
}

/// A number, duration or size one step further; none below zero.
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a table with such a bound fails its test"
)]
fn step(value: &str, by: i128) -> Option<String> {
    let bare = value.trim_matches('"');
    let digits = bare.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &bare[digits.len()..];
    let (scale, written) = match unit {
        "" => (1, None),
        "ms" => (1, Some("ms")),
        "s" => (1_000, Some("ms")),
        "m" => (60_000, Some("ms")),
        "h" => (3_600_000, Some("ms")),
        "B" => (1, Some("B")),
        "KiB" => (1 << 10, Some("B")),
        "MiB" => (1 << 20, Some("B")),
        "GiB" => (1 << 30, Some("B")),
        "TiB" => (1_i128 << 40, Some("B")),
        other => panic!("{value}: no unit {other}"),
    };
    if digits.contains('.') {
        return None;
    }
    let number = digits.parse::<i128>().unwrap() * scale + by;
    (number >= 0).then(|| match written {
        Some(unit) => format!("\"{number}{unit}\""),
        None => number.to_string(),
    })
}

/// The part of a page that describes keys: a heading for each, so that it has an address.
pub(super) fn describe(keys: &[Key]) -> String {
    let mut text = String::new();
    for key in keys {
        let mut facts = Vec::new();
        if !key.default.is_empty() {
            facts.push(format!("Default: `{}`.", key.default));
        }
        let bounds = key.bounds.describe();
        if !bounds.is_empty() {
            facts.push(format!("Values: {bounds}."));
        }
        if !key.change.is_empty() {
            facts.push(format!("A change: {}.", key.change));
        }
        // Writing into a text cannot fail.
        write!(text, "### `{}`\n\n{}\n", key.name, wrapped(key.meaning)).ok();
        if !facts.is_empty() {
            write!(text, "\n{}\n", wrapped(&facts.join(" "))).ok();
        }
        text.push('\n');
    }
    text
}

/// Breaks a paragraph into lines.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, String::len);
        if line > 0 && line + 1 + word.len() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The keys of a struct that is read from a file: its fields, from the source of its crate, wherever there the struct is.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
pub(super) fn fields(directory: &str, name: &str) -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let head = format!("struct {name} {{\n");
    let mut todo = vec![root.join(directory)];
    let mut found = Vec::new();
    while let Some(next) = todo.pop() {
        for path in std::fs::read_dir(&next)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let Some((before, rest)) = source.split_once(&head) else {
                continue;
            };
            // What is read from a file refuses unknown keys.
            let attributes = before.rsplit("\n\n").next().unwrap_or_default();
            if attributes.contains("deny_unknown_fields") {
                found.push(rest.split_once("\n}").unwrap().0.to_owned());
            }
        }
    }
    assert_eq!(found.len(), 1, "there is one {name} in {directory}");
    names(&found[0])
}

/// The fields of a struct's body, without those that are no keys.
#[cfg(test)]
fn names(body: &str) -> Vec<String> {
    let mut is_skipped = false;
    let mut names = Vec::new();
    for line in body.lines().map(str::trim) {
        is_skipped |= line == "#[serde(skip)]";
        let line = ["pub(super) ", "pub(crate) ", "pub "]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix))
            .unwrap_or(line);
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if let Some((name, _)) = line.split_once(": ").filter(|(name, _)| is_name(name))
            && !std::mem::take(&mut is_skipped)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Fails for a key that the table lacks, or has and the program does not.
#[cfg(test)]
pub(super) fn assert_complete(keys: &[Key], prefix: &str, fields: &[String], tables: &[&str]) {
    let described: Vec<&str> = keys
        .iter()
        .filter_map(|key| key.name.strip_prefix(prefix))
        .filter(|name| !name.contains('.'))
        .collect();
    for field in fields {
        assert!(
            described.contains(&field.as_str()) || tables.contains(&field.as_str()),
            "{prefix}{field} is described nowhere"
        );
    }
    for name in described {
        assert!(
            fields.iter().any(|field| field == name),
            "there is no key {prefix}{name}"
        );
    }
}

/// A line that sets a key, with its table where it has one.
#[cfg(test)]
pub(super) fn setting(name: &str, value: &str) -> String {
    match name.rsplit_once('.') {
        Some((table, key)) => format!("[{table}]\n{key} = {value}\n"),
        None => format!("{name} = {value}\n"),
    }
}

#[cfg(test)]
mod tests;
