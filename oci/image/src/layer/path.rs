//! Paths of a layer's entries: relative to the layer's root, without `.` and `..`.

use crate::limits::{NAME_BYTES, PATH_BYTES, PATH_DEPTH};

/// Why a path is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathProblem {
    /// It leads out of the layer.
    Escapes,
    /// The reason.
    Malformed(&'static str),
}

/// The path relative to the layer, cleaned lexically: its names joined by single slashes, without `.` and `..`; empty for
/// the layer's root.
///
/// A leading slash is dropped, as by tar programs. `..` removes the name before it, and is refused where there is none.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Malformed("an empty path"));
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop().ok_or(PathProblem::Escapes)?),
            name => {
                check_name(name)?;
                names.push(name);
            }
        }
    }
    if names.len() > PATH_DEPTH {
        return Err(PathProblem::Malformed("a path deeper than 256 directories"));
    }
    let cleaned = names.join(&b'/');
    if cleaned.len() > PATH_BYTES {
        return Err(PathProblem::Malformed("a path longer than 4095 bytes"));
    }
    Ok(cleaned)
}

/// One name of a path.
pub(crate) fn check_name(name: &[u8]) -> Result<(), PathProblem> {
    match name {
        b".." | b"." => Err(PathProblem::Escapes),
        b"" => Err(PathProblem::Malformed("an empty name")),
        _ if name.contains(&b'/') => Err(PathProblem::Escapes),
        _ if name.contains(&0) => Err(PathProblem::Malformed("a NUL byte in a name")),
        _ if name.len() > NAME_BYTES => Err(PathProblem::Malformed("a name longer than 255 bytes")),
        _ => Ok(()),
    }
}

/// The directory of a normal path, and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests;
