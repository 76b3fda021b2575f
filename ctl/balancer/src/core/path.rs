//! The path by which a service is chosen: what the process will most likely read in it (RFC 3986, section 6.2.2).
//!
//! Only the choice uses it; the process gets the path as the client wrote it.

use std::borrow::Cow;

/// `path` with unreserved characters decoded, empty and dot segments removed.
pub fn normalize(path: &str) -> Cow<'_, str> {
    let is_normal = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if is_normal || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    Cow::Owned(remove_dot_segments(&decode_unreserved(path)))
}

/// Decodes `%41` to `A`. Reserved characters, such as `%2F`, mean something else when they are decoded; their
/// digits are put in upper case. A `%` without two digits becomes `%25`: what follows it could otherwise decode to
/// its digits.
fn decode_unreserved(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path.char_indices();
    while let Some((index, char)) = rest.next() {
        let code = match char {
            '%' => bytes.get(index + 1..index + 3).and_then(hex),
            _ => None,
        };
        let Some(code) = code else {
            match char {
                '%' => decoded.push_str("%25"),
                char => decoded.push(char),
            }
            continue;
        };
        rest.nth(1);
        match char::from(code) {
            plain if plain.is_ascii_alphanumeric() || "-._~".contains(plain) => decoded.push(plain),
            _ => decoded.push_str(&format!("%{code:02X}")),
        }
    }
    decoded
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(digits[0])?, digit(digits[1])?);
    u8::try_from(high * 16 + low).ok()
}

/// RFC 3986, section 5.2.4; empty segments are removed as well, since most servers merge slashes.
fn remove_dot_segments(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() || path.ends_with(['/', '.']) && is_directory(path) {
        normal.push('/');
    }
    normal
}

/// Whether a path ends in an empty or a dot segment.
fn is_directory(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("" | "." | ".."))
}

#[cfg(test)]
mod tests;
