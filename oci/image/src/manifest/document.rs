//! JSON documents: bounded, and of a known kind.

use std::{collections::HashSet, fmt, fs::File, io::Read};

use oci_spec::image::Digest;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::{content::ingest::Blobs, digest::digest_like, error::Error, limits::Limits};

/// Refuses a document that exceeds `document_bytes`, before it is read.
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

/// Reads a document from the blobs, and checks its digest, and its size if a descriptor states it.
pub(crate) fn read_document(
    blobs: &dyn Blobs,
    what: &str,
    digest: &Digest,
    size: Option<u64>,
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    let missing = || Error::BlobMissing {
        what: what.to_owned(),
        digest: digest.clone(),
    };
    let (path, actual) = blobs.find(digest)?.ok_or_else(missing)?;
    if let Some(expected) = size.filter(|size| *size != actual) {
        return Err(Error::SizeMismatch {
            what: what.to_owned(),
            expected,
            actual,
        });
    }
    check_size(what, actual, limits)?;
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(actual).read_to_end(&mut bytes))
        .map_err(|source| Error::io("read", &path, source))?;
    let actual = digest_like(digest, &bytes);
    if actual != *digest {
        let what = what.to_owned();
        return Err(Error::DigestMismatch {
            what,
            expected: digest.clone(),
            actual,
        });
    }
    Ok(bytes)
}

/// Parses a document. A duplicate key at any depth is refused, since readers differ in which value they use.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    let parsed = serde_json::from_slice::<UniqueKeys>(bytes)
        .and_then(|UniqueKeys| serde_json::from_slice(bytes));
    parsed.map_err(|source| Error::Document {
        what: what.to_owned(),
        source,
    })
}

/// Any JSON without duplicate keys.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<UniqueKeys, A::Error> {
        while sequence.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            keys.insert(key);
            map.next_value::<UniqueKeys>()?;
        }
        Ok(UniqueKeys)
    }
}

#[cfg(test)]
mod tests;
