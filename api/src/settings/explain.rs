//! The deserializers' messages in the user's words.

use std::fmt;

/// What a message of a deserializer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A key that nothing reads.
    UnknownKey {
        found: String,
        /// The one that was most likely meant.
        meant: Option<String>,
        known: Vec<String>,
    },
    /// A key that must be there.
    Missing { key: String },
    /// Everything else, in words.
    Other { message: String },
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey {
                found,
                meant,
                known,
            } => f.write_str(&unknown("key", found, meant.as_deref(), known)),
            Self::Missing { key } => write!(f, "the key {key:?} is missing"),
            Self::Other { message } => f.write_str(message),
        }
    }
}

/// What a message of a deserializer means.
pub(super) fn explain(message: &str) -> Meaning {
    let message = message.trim().replace('\n', " ");
    let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
    if message.starts_with("unknown field") {
        let (found, known) = (
            quoted.next().unwrap_or_default(),
            quoted.collect::<Vec<_>>(),
        );
        let meant = suggestion(&found, &known);
        return Meaning::UnknownKey {
            found,
            meant,
            known,
        };
    }
    if message.starts_with("unknown variant") {
        let (found, known) = (
            quoted.next().unwrap_or_default(),
            quoted.collect::<Vec<_>>(),
        );
        let meant = suggestion(&found, &known);
        let message = unknown("value", &found, meant.as_deref(), &known);
        return Meaning::Other { message };
    }
    if let Some(missing) = message.strip_prefix("missing field `") {
        let key = missing.split('`').next().unwrap_or_default().to_owned();
        return Meaning::Missing { key };
    }
    if message.starts_with("duplicate field `") {
        let key = quoted.next().unwrap_or_default();
        let message = format!("the key {key:?} is there twice");
        return Meaning::Other { message };
    }
    if let Some(place) = message.strip_prefix("EOF while parsing ") {
        let message = format!("the text ends inside {}", article(place));
        return Meaning::Other { message };
    }
    let message = expected(&message).unwrap_or(message);
    Meaning::Other { message }
}

fn unknown(what: &str, found: &str, meant: Option<&str>, known: &[String]) -> String {
    match meant {
        Some(meant) => format!("unknown {what} {found:?}: did you mean {meant:?}?"),
        None => format!(
            "unknown {what} {found:?}: the {what}s are {}",
            known.join(", ")
        ),
    }
}

/// `invalid type: string "six", expected u32` → `expected a whole number, found the string "six"`.
fn expected(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, wanted) = rest.rsplit_once(", expected ")?;
    let wanted = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" if found.starts_with("integer") => "a whole number from 0 to 4294967295",
        "u32" => "a whole number",
        "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "a string" => "a string in quotes",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let found = match found.split_once(' ') {
        Some(("integer" | "floating", rest)) => {
            let number = rest.trim_start_matches("point ").trim_matches('`');
            number.to_owned()
        }
        Some(("string", text)) => format!("the string {text}"),
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ => match found {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            other => other.to_owned(),
        },
    };
    Some(format!("expected {wanted}, found {found}"))
}

fn article(place: &str) -> String {
    match place.starts_with("a") {
        true => place.to_owned(),
        false => format!("a {place}"),
    }
}

fn suggestion(found: &str, known: &[String]) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    closest(found, &known).map(str::to_owned)
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
