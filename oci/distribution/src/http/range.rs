//! Byte ranges: of a requested blob (RFC 9110, section 14), and of an uploaded piece.

use axum::http::{HeaderMap, header};

use crate::error::Error;

/// The requested range of a blob of `bytes`: its first byte and its length. `None` means the whole blob, also for an
/// unknown range unit, as the standard requires.
pub(super) fn requested(headers: &HeaderMap, bytes: u64) -> Result<Option<(u64, u64)>, Error> {
    let Some(spec) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Ok(None);
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Some(first), None) if last.is_empty() => first..bytes,
        (None, Some(length)) if first.is_empty() => bytes.saturating_sub(length)..bytes,
        _ => return Ok(None),
    };
    match range.is_empty() {
        true => Err(Error::NoSuchRange(bytes)),
        false => Ok(Some((range.start, range.end - range.start))),
    }
}

/// Checks that a piece of an upload with a `Content-Range` begins where the last one ended; returns its length.
pub(super) fn of_piece(headers: &HeaderMap, so_far: u64) -> Result<Option<u64>, Error> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| number(value.to_str().ok()?));
    let Some(range) = headers.get(header::CONTENT_RANGE) else {
        return Ok(length);
    };
    let text = range.to_str().unwrap_or_default().trim();
    let invalid =
        || Error::UploadInvalid(format!("the Content-Range {text:?} is not <first>-<last>"));
    let (first, last) = text
        .strip_prefix("bytes ")
        .unwrap_or(text)
        .split_once('-')
        .ok_or_else(invalid)?;
    let last = last.split('/').next().unwrap_or(last);
    let (first, last) = (
        number(first).ok_or_else(invalid)?,
        number(last).ok_or_else(invalid)?,
    );
    if first != so_far {
        let expected = so_far;
        return Err(Error::OutOfOrder {
            expected,
            found: first,
        });
    }
    let announced = last
        .checked_sub(first)
        .and_then(|it| it.checked_add(1))
        .ok_or_else(invalid)?;
    match length {
        Some(length) if length != announced => Err(Error::SizeInvalid(format!(
            "the Content-Range has {announced} bytes, and the Content-Length is {length}"
        ))),
        _ => Ok(Some(announced)),
    }
}

/// Parses digits without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
