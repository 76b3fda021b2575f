//! Scalars and small forms that several keys share.

use tucano_api::units::{Bytes, Span};

use super::yaml::{Node, Value};

/// The words of a command: a list as it is, a text split as a shell does, without expansions.
///
/// # Errors
/// It is neither, or a quote is not closed. A message for the user.
pub(super) fn command(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::List(list) => list.iter().map(|it| text(it).map(str::to_owned)).collect(),
        Value::Text { text, .. } => split(text),
        _ => Err(format!(
            "write a list of words, or a text, not {}",
            node.kind()
        )),
    }
}

/// The text of a scalar.
///
/// # Errors
/// It is none.
pub(super) fn text(node: &Node) -> Result<&str, String> {
    node.text()
        .ok_or_else(|| format!("write a text, not {}", node.kind()))
}

/// `true` or `false`, as plain words or quoted.
///
/// # Errors
/// It is neither.
pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    match text(node)? {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// A number without sign.
///
/// # Errors
/// It is none.
pub(super) fn number<T: std::str::FromStr>(node: &Node) -> Result<T, String> {
    let text = text(node)?;
    text.parse()
        .map_err(|_| format!("{text:?} is not a number that can be used here"))
}

/// A list of texts; a single text is a list of one.
///
/// # Errors
/// It is neither.
pub(super) fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Null => Ok(Vec::new()),
        Value::Text { text, .. } => Ok(vec![text.clone()]),
        Value::List(list) => list.iter().map(|it| text(it).map(str::to_owned)).collect(),
        Value::Map(_) => Err("write a list, not a mapping".to_owned()),
    }
}

/// Names with values: a mapping, or a list of `name=value`. A name without a value has none.
///
/// # Errors
/// It is neither.
pub(super) fn pairs(
    node: &Node,
    separators: &[char],
) -> Result<Vec<(String, Option<String>)>, String> {
    match &node.value {
        Value::Null => Ok(Vec::new()),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| match &entry.node.value {
                Value::Null => Ok((entry.key.clone(), None)),
                _ => Ok((entry.key.clone(), Some(text(&entry.node)?.to_owned()))),
            })
            .collect(),
        Value::List(list) => {
            let pair = |node: &Node| {
                let text = text(node)?;
                Ok(match text.split_once(separators) {
                    Some((name, value)) => (name.trim().to_owned(), Some(value.to_owned())),
                    None => (text.trim().to_owned(), None),
                })
            };
            list.iter().map(pair).collect()
        }
        Value::Text { .. } => Err("write a mapping, or a list of name=value".to_owned()),
    }
}

/// A size as Docker writes it: `512m`, `1.5gb`, `64k`, or bytes.
///
/// # Errors
/// It is none.
pub(super) fn bytes(node: &Node) -> Result<Bytes, String> {
    let text = text(node)?;
    let wrong = || format!("{text:?} is not a size: write for example 512m or 1g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1_u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
    let bytes = number * unit as f64;
    match number.is_finite() && (0.0..1e18).contains(&bytes) {
        true => Ok(Bytes(bytes as u64)),
        false => Err(wrong()),
    }
}

/// A duration as Compose writes it: `1m30s`, `500ms`, `10s`. A number alone is one of seconds.
///
/// # Errors
/// It is none.
pub(super) fn duration(node: &Node) -> Result<Span, String> {
    let text = text(node)?;
    let wrong = || format!("{text:?} is not a duration: write for example 30s or 1m30s");
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u64>() {
        return Ok(Span::secs(seconds));
    }
    let mut millis = 0.0;
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        millis += number
            * match &rest[..unit] {
                "us" | "µs" => 0.001,
                "ms" => 1.0,
                "s" => 1000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    match millis.is_finite() && millis < 1e15 && !text.trim().is_empty() {
        true => Ok(Span::millis(millis.round() as u64)),
        false => Err(wrong()),
    }
}

/// A name as services and volumes have them, made from one that Compose takes.
pub(super) fn name(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let plain = lower.chars().map(|c| match c {
        'a'..='z' | '0'..='9' => c,
        _ => '-',
    });
    let plain: String = plain.collect();
    let plain = plain.trim_matches('-');
    let begins = plain.starts_with(|c: char| c.is_ascii_digit());
    let text = if begins {
        format!("s{plain}")
    } else {
        plain.to_owned()
    };
    text.chars()
        .take(50)
        .collect::<String>()
        .trim_end_matches('-')
        .to_owned()
}

/// Splits as a POSIX shell does: quotes and backslashes, and nothing else.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match next {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(other) => word.push(other),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(other @ ('"' | '\\' | '$' | '`')) => word.push(other),
                            Some('\n') => {}
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a quote is not closed".to_owned()),
                        },
                        Some(other) => word.push(other),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(other) => word.get_or_insert_default().push(other),
            },
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Node {
        let value = Value::Text {
            text: text.to_owned(),
            is_plain: true,
        };
        Node { line: 1, value }
    }

    #[test]
    fn commands_are_split_as_by_a_shell() {
        for (text, words) in [
            (
                "redis-server --save 60 1",
                &["redis-server", "--save", "60", "1"][..],
            ),
            ("sh -c 'echo \"a b\"'", &["sh", "-c", "echo \"a b\""]),
            ("a \"b \\\" c\" d\\ e ''", &["a", "b \" c", "d e", ""]),
        ] {
            assert_eq!(command(&plain(text)).unwrap(), words, "{text}");
        }
        assert!(command(&plain("a 'b")).is_err());
    }

    #[test]
    fn sizes_and_durations_are_dockers() {
        for (text, size) in [
            ("512m", 512 << 20),
            ("1.5gb", 3 << 29),
            ("64K", 64 << 10),
            ("100", 100),
        ] {
            assert_eq!(bytes(&plain(text)).unwrap().0, size, "{text}");
        }
        for (text, millis) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("10", 10_000),
        ] {
            assert_eq!(
                duration(&plain(text)).unwrap(),
                Span::millis(millis),
                "{text}"
            );
        }
        for text in ["", "much", "1x", "-1m"] {
            assert!(
                bytes(&plain(text)).is_err() && duration(&plain(text)).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn names_are_made_plain() {
        for (text, expected) in [
            ("My_App", "my-app"),
            ("2048", "s2048"),
            ("web", "web"),
            ("_x_", "x"),
        ] {
            assert_eq!(name(text), expected);
        }
    }
}
