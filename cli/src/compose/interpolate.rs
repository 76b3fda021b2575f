//! `$VARIABLE`, `${VARIABLE}` and its forms, as the Compose specification has them.

use std::iter::Peekable;

/// What a variable is; `None` if it is not set.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in a text. Returns also those that are not set and have no default.
///
/// # Errors
/// The text is not well-formed, or a variable that is required is not set. A message for the user.
pub(super) fn interpolate(
    text: &str,
    variables: Variables<'_>,
) -> Result<(String, Vec<String>), String> {
    let mut unset = Vec::new();
    let mut chars = text.chars().peekable();
    let text = expand(&mut chars, variables, &mut unset, false)?;
    Ok((text, unset))
}

fn expand(
    chars: &mut Peekable<std::str::Chars<'_>>,
    variables: Variables<'_>,
    unset: &mut Vec<String>,
    is_nested: bool,
) -> Result<String, String> {
    let mut out = String::new();
    while let Some(next) = chars.peek().copied() {
        if next == '}' && is_nested {
            return Ok(out);
        }
        chars.next();
        if next != '$' {
            out.push(next);
            continue;
        }
        match chars.peek() {
            Some('$') => {
                chars.next();
                out.push('$');
            }
            Some('{') => {
                chars.next();
                out.push_str(&braced(chars, variables, unset)?);
            }
            Some(letter) if is_start(*letter) => {
                let name = name(chars);
                out.push_str(&plain(&name, variables, unset));
            }
            _ => return Err("a `$` begins no variable: write `$$` for the character".to_owned()),
        }
    }
    match is_nested {
        true => Err("`${` has no `}`".to_owned()),
        false => Ok(out),
    }
}

fn braced(
    chars: &mut Peekable<std::str::Chars<'_>>,
    variables: Variables<'_>,
    unset: &mut Vec<String>,
) -> Result<String, String> {
    let name = name(chars);
    if name.is_empty() {
        return Err("`${` is followed by no name of a variable".to_owned());
    }
    let value = variables(&name);
    let mut operator = chars.next();
    if operator == Some('}') {
        return Ok(plain(&name, variables, unset));
    }
    // With a colon, an empty value counts as none.
    let value = match operator {
        Some(':') => {
            operator = chars.next();
            value.filter(|value| !value.is_empty())
        }
        _ => value,
    };
    let mut unset_within = Vec::new();
    let rest = expand(chars, variables, &mut unset_within, true)?;
    chars.next();
    match (operator, value) {
        (Some('-'), Some(value)) | (Some('?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => {
            unset.extend(unset_within);
            Ok(rest)
        }
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(match rest.is_empty() {
            true => format!("the variable {name} is required and not set"),
            false => format!("the variable {name} is required and not set: {rest}"),
        }),
        _ => Err(format!(
            "`${{{name}…}}` is no form of a variable: write `${{{name}}}`, or one with `:-`, `-`, `:?`, `?`, `:+` or `+`"
        )),
    }
}

fn plain(name: &str, variables: Variables<'_>, unset: &mut Vec<String>) -> String {
    variables(name).unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

fn name(chars: &mut Peekable<std::str::Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(next) = chars.peek().copied() {
        let is_part = is_start(next) || !name.is_empty() && next.is_ascii_digit();
        if !is_part {
            break;
        }
        name.push(next);
        chars.next();
    }
    name
}

fn is_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let variables = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        interpolate(text, &variables).map(|(text, _)| text)
    }

    #[test]
    fn every_form_of_the_specification_is_known() {
        for (text, expected) in [
            ("$A and ${A}b", "a and ab"),
            ("$$A costs $$5", "$A costs $5"),
            ("[${NONE}]", "[]"),
            ("${NONE:-x}${EMPTY:-y}${EMPTY-z}${NONE-w}", "xyw"),
            ("${A:+x}${EMPTY:+y}${EMPTY+z}${NONE+w}", "xz"),
            ("${NONE:-${A}-${ALSO:-b}}", "a-b"),
            ("${A:?needed}", "a"),
            ("a}b", "a}b"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, part) in [
            ("${NONE:?set it}", "NONE is required and not set: set it"),
            ("cost$", "write `$$`"),
            ("${A", "no `}`"),
            ("${A:-b", "no `}`"),
            ("${}", "no name"),
            ("${A/b/c}", "is no form"),
        ] {
            let error = expanded(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn variables_that_are_not_set_are_named() {
        let (_, unset) = interpolate("$A ${B} ${C:-$D} ${E:-x}", &|_| None).unwrap();
        assert_eq!(unset, ["A", "B", "D"]);
    }
}
