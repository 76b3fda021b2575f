//! Files of variables: `.env`, and those that `env_file` names.

use super::interpolate::{Variables, interpolate};

/// A variable and its value; `None` where only the name is given, and nothing here has a value for it.
pub(crate) type Variable = (String, Option<String>);

/// Reads the variables of a file, in its order. Unquoted and double-quoted values have their own variables replaced, by earlier ones
/// of the file and by `variables`; single-quoted ones are taken as they are.
///
/// # Errors
/// The number of the line, and what is wrong with it.
pub(crate) fn parse(
    text: &str,
    variables: Variables<'_>,
) -> Result<Vec<Variable>, (usize, String)> {
    let mut all: Vec<Variable> = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            // A name alone has the value that it has here.
            let name = line.trim_end();
            check_name(name).map_err(|error| (number, error))?;
            all.push((name.to_owned(), variables(name)));
            continue;
        };
        let name = name.trim_end();
        check_name(name).map_err(|error| (number, error))?;
        let mut value = value.trim_start().to_owned();
        // A quoted value may go on over several lines.
        while is_open(&value)
            && let Some((_, more)) = lines.next()
        {
            value.push('\n');
            value.push_str(more);
        }
        let known = |name: &str| {
            let earlier = all.iter().rev().find(|(it, _)| it == name);
            variables(name).or_else(|| earlier.and_then(|(_, value)| value.clone()))
        };
        let value = unquoted(&value, &known).map_err(|error| (number, error))?;
        all.push((name.to_owned(), Some(value)));
    }
    Ok(all)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = !name.is_empty() && !name.contains(char::is_whitespace);
    match is_plain {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not the name of a variable: write NAME=value"
        )),
    }
}

/// Whether a value begins with a quote that is not closed.
fn is_open(value: &str) -> bool {
    let Some(quote) = value.chars().next().filter(|it| "'\"".contains(*it)) else {
        return false;
    };
    end_of(value, quote).is_none()
}

/// The index of the quote that closes the value.
fn end_of(value: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    value.char_indices().skip(1).find_map(|(index, character)| {
        if is_escaped {
            is_escaped = false;
            return None;
        }
        is_escaped = character == '\\' && quote == '"';
        (character == quote).then_some(index)
    })
}

fn unquoted(value: &str, variables: Variables<'_>) -> Result<String, String> {
    let quote = value.chars().next().filter(|it| "'\"".contains(*it));
    let Some(quote) = quote else {
        // A comment begins after a space.
        let end = value
            .find(" #")
            .or_else(|| value.starts_with('#').then_some(0));
        let value = value[..end.unwrap_or(value.len())].trim_end();
        return interpolate(value, variables).map(|(text, _)| text);
    };
    let end = end_of(value, quote).ok_or("a quote is not closed")?;
    let rest = value[end + 1..].trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("something follows the closing quote".to_owned());
    }
    let inner = &value[1..end];
    match quote {
        '\'' => Ok(inner.to_owned()),
        _ => interpolate(&unescaped(inner), variables).map(|(text, _)| text),
    }
}

/// `\n`, `\t`, `\r`, `\"`, `\\` and `\$`, which becomes `$$`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        if next != '\\' {
            out.push(next);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_compose_reads_them() {
        let text = "\u{feff}# comment\nA=1\nexport B = two words # comment\nC='abc$def'\nD=\"x $A\\n\\\"y\\\" \\$5\"\nE=a#b\nF=\nG=${A:-z}\nLONG='one\ntwo'\nHERE\nGONE\nURL=postgres://u:p@db/x?y=z\n";
        let here = |name: &str| (name == "HERE").then(|| "here".to_owned());
        let all = parse(text, &here).unwrap();
        let expected = [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("abc$def")),
            ("D", Some("x 1\n\"y\" $5")),
            ("E", Some("a#b")),
            ("F", Some("")),
            ("G", Some("1")),
            ("LONG", Some("one\ntwo")),
            ("HERE", Some("here")),
            ("GONE", None),
            ("URL", Some("postgres://u:p@db/x?y=z")),
        ];
        let all: Vec<_> = all
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            ("A=1\nB C=2", 2),
            ("A='x", 1),
            ("A=\"x\" y", 1),
            ("A=1\nB=$", 2),
        ] {
            assert_eq!(parse(text, &|_| None).unwrap_err().0, line, "{text}");
        }
    }
}
