//! From a stored document to the image that it means for a platform. Unlike an archive, which should hold one image, a
//! registry's index is a list to choose from, in order of preference: the first image that fits is meant (OCI image
//! specification, "Image Index": "If multiple manifests match a client or runtime's requirements, the first matching
//! entry SHOULD be used").

use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    document,
    error::Error,
    image::{Image, Platform, read_document},
    ingest::Blobs,
    limits::{INDEX_DEPTH, Limits},
};

const WHAT: &str = "the stored document";
/// Attestations go by a platform that no machine has.
const ATTESTATION: &str = "unknown/unknown";
/// Most documents that are read on the way, however indexes refer to each other.
const DOCUMENTS: usize = 256;

/// The image for `platform` that a stored document means: a manifest itself, or one that an index names.
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
    found.map_or_else(|| Err(choice.none_fits()), Ok)
}

struct Choice<'a> {
    blobs: &'a dyn Blobs,
    platform: &'a Platform,
    limits: &'a Limits,
    /// The platforms of the images that were passed over.
    others: Vec<String>,
    documents: usize,
}

/// What tells an index from a manifest.
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
            // Readers would differ in what they take it for.
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
            if !self.may_fit(descriptor) {
                continue;
            }
            let size = Some(descriptor.size());
            if let Some(image) = self.document(descriptor.digest(), size, depth + 1)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Whether the descriptor's platform, where it has one, is the one asked for.
    fn may_fit(&mut self, descriptor: &Descriptor) -> bool {
        let Some(platform) = descriptor.platform() else {
            return true;
        };
        let (os, architecture) = (
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        let platform = Platform { os, architecture };
        let fits = platform == *self.platform;
        if !fits {
            self.others.push(platform.to_string());
        }
        fits
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

    fn none_fits(mut self) -> Error {
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
