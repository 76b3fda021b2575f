//! Resolves a stored document to the image for a platform. An archive should hold one image; a registry's index is a list
//! in order of preference, and its first matching image is used (OCI image specification, "Image Index": "If multiple manifests match a client or runtime's requirements, the first matching
//! entry SHOULD be used").

use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    content::ingest::Blobs,
    error::Error,
    limits::{INDEX_DEPTH, Limits},
    manifest::document,
    manifest::document::read_document,
    manifest::image::{Image, Platform},
};

const WHAT: &str = "the stored document";
/// The platform of attestations, which no machine has.
const ATTESTATION: &str = "unknown/unknown";
/// Most documents that are read for one resolution, however indexes refer to each other.
const DOCUMENTS: usize = 256;

/// The image for `platform` of a stored document: a manifest itself, or one that an index lists.
pub(crate) fn resolve(
    blobs: &dyn Blobs,
    digest: &Digest,
    platform: &Platform,
    limits: &Limits,
) -> Result<Image, Error> {
    let mut choice = Choice {
        blobs,
        platform,
        limits,
        others: Vec::new(),
        documents: 0,
    };
    let found = choice.document(digest, None, 0)?;
    found.map_or_else(|| Err(choice.no_match()), Ok)
}

struct Choice<'a> {
    blobs: &'a dyn Blobs,
    platform: &'a Platform,
    limits: &'a Limits,
    /// The platforms of the images that do not match.
    others: Vec<String>,
    documents: usize,
}

/// Distinguishes an index from a manifest.
#[derive(Debug, Deserialize)]
struct Kind {
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Choice<'_> {
    fn document(
        &mut self,
        digest: &Digest,
        size: Option<u64>,
        depth: usize,
    ) -> Result<Option<Image>, Error> {
        self.documents += 1;
        if self.documents > DOCUMENTS || depth > INDEX_DEPTH {
            let reason = format!(
                "it leads through more than {DOCUMENTS} documents, or deeper than {INDEX_DEPTH} indexes"
            );
            return Err(Error::malformed(WHAT, reason));
        }
        let bytes = read_document(self.blobs, WHAT, digest, size, self.limits)?;
        let kind: Kind = document::parse(WHAT, &bytes)?;
        match (kind.manifests.is_some(), kind.config.is_some()) {
            (true, false) => self.index(&document::parse(WHAT, &bytes)?, depth),
            (false, true) => self.image(digest),
            // Other readers may interpret it differently.
            (true, true) => Err(Error::malformed(WHAT, "it is both an index and a manifest")),
            (false, false) => Err(Error::malformed(
                WHAT,
                "it is neither an index nor a manifest",
            )),
        }
    }

    fn index(&mut self, index: &ImageIndex, depth: usize) -> Result<Option<Image>, Error> {
        if index.schema_version() != 2 {
            return Err(Error::malformed(WHAT, "its schemaVersion is not 2"));
        }
        for descriptor in index.manifests() {
            if !self.may_match(descriptor) {
                continue;
            }
            let size = Some(descriptor.size());
            if let Some(image) = self.document(descriptor.digest(), size, depth + 1)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Whether the descriptor's platform, if it has one, is the requested one.
    fn may_match(&mut self, descriptor: &Descriptor) -> bool {
        let Some(platform) = descriptor.platform() else {
            return true;
        };
        let (os, architecture) = (
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        let platform = Platform { os, architecture };
        let matches = platform == *self.platform;
        if !matches {
            self.others.push(platform.to_string());
        }
        matches
    }

    fn image(&mut self, digest: &Digest) -> Result<Option<Image>, Error> {
        let image = Image::read(self.blobs, digest, self.limits)?;
        let actual = image.platform();
        if actual == *self.platform {
            return Ok(Some(image));
        }
        self.others.push(actual.to_string());
        Ok(None)
    }

    fn no_match(mut self) -> Error {
        self.others.retain(|other| other != ATTESTATION);
        self.others.sort();
        self.others.dedup();
        if self.others.is_empty() {
            return Error::malformed(WHAT, "it names no container image");
        }
        Error::WrongArchitecture {
            has: self.others,
            wanted: self.platform.to_string(),
        }
    }
}
