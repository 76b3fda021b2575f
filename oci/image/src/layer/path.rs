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

/// The path relative to the layer, its names joined by single slashes; empty for the layer itself.
///
/// A leading slash is dropped, as tar programs do. `..` is refused even where it would stay inside:
/// no honest image has it.
pub(crate) fn normalise(path: &[u8]) -> Result<Vec<u8>, PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Malformed("an empty path"));
    }
    if path.len() > PATH_BYTES {
        return Err(PathProblem::Malformed("a path longer than 4095 bytes"));
    }
    let mut normal = Vec::with_capacity(path.len());
    let mut depth = 0;
    for name in path.split(|byte| *byte == b'/') {
        if name.is_empty() || name == b"." {
            continue;
        }
        check_name(name)?;
        depth += 1;
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(name);
    }
    if depth > PATH_DEPTH {
        return Err(PathProblem::Malformed("a path deeper than 256 directories"));
    }
    Ok(normal)
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
mod tests {
    use super::*;

    #[test]
    fn paths_become_relative_and_clean() {
        for (path, normal) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("./", ""),
            ("/", ""),
            ("a/./...", "a/..."),
        ] {
            assert_eq!(
                normalise(path.as_bytes()).unwrap(),
                normal.as_bytes(),
                "{path}"
            );
        }
    }

    #[test]
    fn paths_out_of_the_layer_are_refused() {
        for path in ["..", "../../etc/x", "a/../../b", "a/..", "/../x", "./.."] {
            assert_eq!(
                normalise(path.as_bytes()),
                Err(PathProblem::Escapes),
                "{path}"
            );
        }
    }

    #[test]
    fn paths_that_the_kernel_refuses_are_refused() {
        let (long, deep) = ("x".repeat(256), "x/".repeat(257));
        let longest = "xxxxxxx/".repeat(512);
        for path in ["", "a\0b", &long, &deep, &longest] {
            assert!(
                matches!(normalise(path.as_bytes()), Err(PathProblem::Malformed(_))),
                "{path:?}"
            );
        }
        assert!(normalise("x/".repeat(256).as_bytes()).is_ok());
        assert!(normalise("x".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn the_last_name_is_split_off() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
