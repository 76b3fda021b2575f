//! Images of the store: reading them by their documents, and removing the blobs that no image needs.

use std::{collections::HashSet, slice};

use oci_spec::image::{Digest, DigestAlgorithm, ImageManifest};

use crate::{
    content::store::Store,
    digest::digest_of,
    error::Error,
    manifest::{
        document::{self, read_document},
        image::{Image, Platform},
        registry_index,
    },
};

impl Store {
    /// The image whose manifest has this digest.
    ///
    /// # Errors
    /// `not_found` if the manifest is not stored; otherwise as for an archive's documents.
    pub fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        if !self.contains(manifest) {
            return Err(Error::NotFound(manifest.clone()));
        }
        let read = Image::read(self, manifest, self.limits());
        self.removing_damaged(read, slice::from_ref(manifest))
    }

    /// The image for `platform` that a stored document describes: a manifest itself, or the first match of an index.
    ///
    /// # Errors
    /// `not_found` if the document is not stored; otherwise as for an archive's documents.
    pub fn resolve(&self, document: &Digest, platform: &Platform) -> Result<Image, Error> {
        if !self.contains(document) {
            return Err(Error::NotFound(document.clone()));
        }
        let read = registry_index::resolve(self, document, platform, self.limits());
        self.removing_damaged(read, slice::from_ref(document))
    }

    /// The SHA-256 digest of a stored document. The document is stored under that digest too from then on.
    ///
    /// # Errors
    /// `not_found` if the document is not stored; otherwise why it cannot be read or stored.
    pub fn by_sha256(&self, document: &Digest) -> Result<Digest, Error> {
        if *document.algorithm() == DigestAlgorithm::Sha256 {
            return Ok(document.clone());
        }
        let bytes = read_document(self, "a document", document, None, self.limits())?;
        let digest = digest_of(&bytes);
        self.ingest_blob(&digest, &bytes[..])?;
        Ok(digest)
    }

    /// Removes every blob that none of these images refers to and that was stored before the call; returns the bytes
    /// freed. Safe beside imports. Images that are not stored are ignored.
    ///
    /// # Errors
    /// If the manifest of one of these images cannot be parsed: nothing is removed then.
    pub fn retain(&self, images: &[Digest]) -> Result<u64, Error> {
        self.retain_with(images, HashSet::new())
    }

    /// Like [`Store::retain`], and keeps these `blobs` too.
    ///
    /// # Errors
    /// As [`Store::retain`].
    pub fn retain_with(&self, images: &[Digest], blobs: HashSet<Digest>) -> Result<u64, Error> {
        let stored = self.snapshot()?;
        let mut kept = blobs;
        for image in images {
            kept.extend(self.references(image)?);
        }
        self.remove_unchanged(stored, &kept)
    }

    /// The image's blobs as far as they are known: its configuration may not be stored yet.
    fn references(&self, image: &Digest) -> Result<Vec<Digest>, Error> {
        if !self.contains(image) {
            return Ok(Vec::new());
        }
        let what = "an image's manifest";
        let bytes = read_document(self, what, image, None, self.limits())?;
        let manifest: ImageManifest = document::parse(what, &bytes)?;
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        Ok(blobs
            .map(|blob| blob.digest().clone())
            .chain([image.clone()])
            .collect())
    }
}
