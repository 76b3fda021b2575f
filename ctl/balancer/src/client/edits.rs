//! What hyper must see instead of a client's bytes, and how the process gets the original ones again.
//!
//! `http::Uri` refuses four characters in a target that other proxies forward unchanged. Each is replaced by a
//! character that targets of clients cannot contain, since bytes over 127 are refused, and replaced back when
//! the request line is written to a process ([`restore_target`]).

use bytes::BytesMut;

/// A replacement of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    at: usize,
    len: usize,
    with: Vec<u8>,
}

/// The characters that are replaced, in order of their substitutes.
const REPLACED: [u8; 4] = *b"\"<>`";
/// The substitutes are U+0080 to U+0083: this byte, and one from [`SUBSTITUTE`] on.
const SUBSTITUTE_LEAD: u8 = 0xc2;
const SUBSTITUTE: u8 = 0x80;

impl Edit {
    /// Replaces `len` bytes at `at`.
    pub fn new(at: usize, len: usize, with: Vec<u8>) -> Self {
        Self { at, len, with }
    }

    /// The same edit within bytes that begin `by` bytes earlier.
    pub fn moved(mut self, by: usize) -> Self {
        self.at += by;
        self
    }
}

/// Appends `bytes` to `to`, edited.
pub fn apply(edits: &[Edit], bytes: &[u8], to: &mut BytesMut) {
    let mut copied = 0;
    for edit in edits {
        to.extend_from_slice(&bytes[copied..edit.at]);
        to.extend_from_slice(&edit.with);
        copied = edit.at + edit.len;
    }
    to.extend_from_slice(&bytes[copied..]);
}

/// A target as hyper must see it, if that differs.
pub fn escape_target(target: &[u8]) -> Option<Vec<u8>> {
    target
        .iter()
        .any(|byte| REPLACED.contains(byte))
        .then(|| target.iter().flat_map(|byte| escape(*byte)).collect())
}

fn escape(byte: u8) -> impl Iterator<Item = u8> {
    let place = REPLACED.iter().position(|replaced| *replaced == byte);
    let (lead, byte) = match place {
        Some(place) => (Some(SUBSTITUTE_LEAD), SUBSTITUTE + place as u8),
        None => (None, byte),
    };
    lead.into_iter().chain([byte])
}

/// Whether a target contains substitutes.
pub fn is_escaped(target: &str) -> bool {
    !target.is_ascii()
}

/// A request line with the characters that the client sent.
pub fn restore_target(line: &[u8]) -> Vec<u8> {
    let mut restored = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            SUBSTITUTE_LEAD => {
                let place = bytes
                    .next()
                    .map(|byte| usize::from(byte.wrapping_sub(SUBSTITUTE)));
                restored.extend(place.and_then(|place| REPLACED.get(place)));
            }
            byte => restored.push(byte),
        }
    }
    restored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_targets_are_accepted_by_hyper_and_restored() {
        let target = b"/a\"<b>`?c=\"d\"&e=<f>`";
        let escaped = escape_target(target).unwrap();
        let uri = hyper::Uri::try_from(escaped.as_slice()).unwrap();
        assert!(is_escaped(uri.path()));
        assert_eq!(restore_target(uri.to_string().as_bytes()), target);
        assert_eq!(escape_target(b"/plain?x={1}|2"), None);
    }

    #[test]
    fn edits_are_applied_in_order() {
        let edits = [
            Edit::new(1, 2, b"XYZ".to_vec()),
            Edit::new(1, 1, b"".to_vec()).moved(3),
        ];
        let mut edited = BytesMut::new();
        apply(&edits, b"abcdefg", &mut edited);
        assert_eq!(edited, "aXYZdfg");
    }
}
