//! Reading static configuration: every problem is reported with its file, line, key and what to
//! write instead.

use std::fmt;

use serde::de::DeserializeOwned;

/// Largest configuration text that is read, in bytes.
pub const MAX_SETTINGS_BYTES: usize = 64 << 10;

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

/// A value that reads well but makes no sense, with the key it stands under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as written in the file; dotted for nested keys.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Settings that know what values make sense together.
pub trait Validate {
    /// The first value that makes no sense.
    fn validate(&self) -> Result<(), Problem>;
}

/// Reads TOML, or JSON where the text starts with `{`, and validates it. `file` names the text in errors.
pub fn parse<T: DeserializeOwned + Validate>(file: &str, text: &str) -> Result<T, SettingsError> {
    let error = |position: Option<(usize, usize)>, message| SettingsError {
        file: file.to_owned(),
        line: position.map(|(line, _)| line),
        column: position.map(|(_, column)| column),
        message,
    };
    if text.len() > MAX_SETTINGS_BYTES {
        let message = format!(
            "{} bytes are too many: at most {MAX_SETTINGS_BYTES}",
            text.len()
        );
        return Err(error(None, message));
    }
    let value: T = if text.trim_start().starts_with('{') {
        parse_json(text).map_err(|(position, message)| error(position, message))?
    } else {
        parse_toml(text).map_err(|(position, message)| error(position, message))?
    };
    value.validate().map_err(|problem| {
        error(
            locate(text, &problem.key),
            format!("{}: {}", problem.key, problem.message),
        )
    })?;
    Ok(value)
}

type Located = (Option<(usize, usize)>, String);

fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, Located> {
    let describe = |error: toml::de::Error, key: Option<String>| {
        let position = error.span().map(|span| position(text, span.start));
        (position, explain(error.message(), key.as_deref()))
    };
    let deserializer = toml::Deserializer::parse(text).map_err(|error| describe(error, None))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        describe(error.into_inner(), Some(key))
    })
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, Located> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let key = error.path().to_string();
        describe_json(&error.into_inner(), Some(&key))
    })?;
    deserializer
        .end()
        .map_err(|error| describe_json(&error, None))?;
    Ok(value)
}

fn describe_json(error: &serde_json::Error, key: Option<&str>) -> Located {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    (Some((error.line(), error.column())), explain(message, key))
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

/// Where the last part of a dotted key is assigned, if a line of the text begins with it.
fn locate(text: &str, key: &str) -> Option<(usize, usize)> {
    let last = key.rsplit('.').next()?;
    text.lines().enumerate().find_map(|(index, line)| {
        let trimmed = line.trim_start();
        let rest = trimmed
            .strip_prefix('"')
            .unwrap_or(trimmed)
            .strip_prefix(last)?;
        let rest = rest.strip_prefix('"').unwrap_or(rest).trim_start();
        rest.starts_with(['=', ':'])
            .then_some((index + 1, line.len() - trimmed.len() + 1))
    })
}

/// Puts the deserializer's words into the user's: the key in question, and a likely correction.
fn explain(message: &str, key: Option<&str>) -> String {
    let message = message.trim().replace('\n', " ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let (what, found) = (
            if message.starts_with("unknown f") {
                "key"
            } else {
                "value"
            },
            quoted.next(),
        );
        let known: Vec<&str> = quoted.collect();
        let found = found.unwrap_or_default();
        return match closest(found, &known) {
            Some(suggestion) => format!("unknown {what} {found:?}: did you mean {suggestion:?}?"),
            None => format!("unknown {what} {found:?}; known are: {}", known.join(", ")),
        };
    }
    if let Some(missing) = message.strip_prefix("missing field `") {
        return format!("the key {:?} is missing", missing.trim_end_matches('`'));
    }
    match key {
        Some(key) if !key.is_empty() && key != "." => format!("{key}: {message}"),
        _ => message,
    }
}

/// The known word that `found` was most likely meant to be.
pub fn closest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    known
        .iter()
        .map(|&word| (strsim::jaro_winkler(&found, word), word))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        concurrency: u32,
        #[serde(default)]
        nested: Option<Nested>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nested {
        interval: u32,
    }

    impl Validate for Example {
        fn validate(&self) -> Result<(), Problem> {
            match self.concurrency {
                0 => Err(Problem::new("concurrency", "must be at least 1")),
                _ => Ok(()),
            }
        }
    }

    fn error(text: &str) -> String {
        parse::<Example>("x.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_a_suggestion() {
        let message = error("\nconcurency = 3\n");
        assert_eq!(
            message,
            "x.toml:2:1: unknown key \"concurency\": did you mean \"concurrency\"?"
        );
    }

    #[test]
    fn json_gets_the_same_care() {
        let message = error("{\n \"concurency\": 3}");
        assert!(message.starts_with("x.toml:2:"), "{message}");
        assert!(
            message.ends_with("did you mean \"concurrency\"?"),
            "{message}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        let message = error("concurrency = 3\n[nested]\ninterval = \"x\"");
        assert!(message.starts_with("x.toml:3:"), "{message}");
        assert!(message.contains("nested.interval"), "{message}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_located_by_its_key() {
        assert_eq!(
            error("# c\n concurrency = 0"),
            "x.toml:2:2: concurrency: must be at least 1"
        );
    }

    #[test]
    fn a_missing_key_and_a_huge_text_are_refused() {
        assert!(
            error("").contains("\"concurrency\" is missing"),
            "{}",
            error("")
        );
        assert!(error(&"#".repeat(MAX_SETTINGS_BYTES + 1)).contains("too many"));
    }

    #[test]
    fn a_far_off_key_lists_what_is_known() {
        assert!(error("zzz = 1").contains("known are: concurrency, nested"));
        assert!(
            parse::<Example>("x", "concurrency = 1\nnested = { interval = 2 }")
                .unwrap()
                .nested
                .unwrap()
                .interval
                == 2
        );
    }
}
