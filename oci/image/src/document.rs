//! JSON documents: bounded, and of a known kind.

use serde::de::DeserializeOwned;

use crate::{error::Error, limits::Limits};

/// Refuses a document that is longer than one may be, before it is read.
pub(crate) fn check_size(what: &str, bytes: u64, limits: &Limits) -> Result<(), Error> {
    if bytes <= limits.document_bytes {
        return Ok(());
    }
    let limit = format!("{} bytes", limits.document_bytes);
    Err(Error::TooLarge {
        what: what.to_owned(),
        limit,
    })
}

/// The document; a key that comes twice is refused, since readers differ in which one they take.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document {
        what: what.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::ImageIndex;

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
        let error = parse::<ImageIndex>("index.json", twice).unwrap_err();
        assert_eq!(error.code(), "malformed");
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }

    #[test]
    fn a_document_is_bounded() {
        let limits = Limits {
            document_bytes: 10,
            ..Limits::default()
        };
        assert!(check_size("it", 10, &limits).is_ok());
        assert_eq!(
            check_size("it", 11, &limits).unwrap_err().code(),
            "too_large"
        );
    }
}
