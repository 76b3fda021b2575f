//! Selects the one image for this machine from an image layout's index.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, Digest, ImageIndex, MediaType};

use crate::{
    content::ingest::Blobs,
    error::Error,
    limits::{INDEX_DEPTH, INDEX_ENTRIES, Limits},
    manifest::document,
    manifest::document::read_document,
    manifest::image::{Image, Platform},
    manifest::names::{NameFilter, names_of},
};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Which of several images to select.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) name: NameFilter<'a>,
}

/// The selected image of the index.
pub(crate) fn resolve(
    blobs: &dyn Blobs,
    index: &[u8],
    selection: Selection<'_>,
    limits: &Limits,
) -> Result<Image, Error> {
    let mut search = Search::new(blobs, selection, limits);
    search.index(document::parse("index.json", index)?, &[], 0)?;
    search.result("index.json")
}

/// Collects images, and selects one.
pub(crate) struct Search<'a> {
    blobs: &'a dyn Blobs,
    selection: Selection<'a>,
    limits: &'a Limits,
    /// Matching images, each with its names.
    fitting: Vec<(Vec<String>, Image)>,
    /// The platforms of the other images.
    others: Vec<String>,
    /// The names of images that were not selected.
    skipped: Vec<String>,
    /// Documents that were read already, with their names: an index may list one several times.
    seen: HashSet<(Digest, Vec<String>)>,
    entries: usize,
}

impl<'a> Search<'a> {
    pub(crate) fn new(blobs: &'a dyn Blobs, selection: Selection<'a>, limits: &'a Limits) -> Self {
        Self {
            blobs,
            selection,
            limits,
            fitting: Vec::new(),
            others: Vec::new(),
            skipped: Vec::new(),
            seen: HashSet::new(),
            entries: 0,
        }
    }

    fn index(&mut self, index: ImageIndex, names: &[String], depth: usize) -> Result<(), Error> {
        if index.schema_version() != 2 {
            return Err(Error::malformed("the index", "its schemaVersion is not 2"));
        }
        if depth > INDEX_DEPTH {
            let reason = format!("indexes within indexes are deeper than {INDEX_DEPTH}");
            return Err(Error::malformed("the index", reason));
        }
        for descriptor in index.manifests() {
            self.count()?;
            let own = names_of(descriptor.annotations().as_ref());
            let names = if own.is_empty() { names } else { &own };
            if !self
                .seen
                .insert((descriptor.digest().clone(), names.to_vec()))
            {
                continue;
            }
            match descriptor.media_type() {
                MediaType::ImageIndex => self.nested(descriptor, names, depth)?,
                MediaType::Other(list) if list == DOCKER_LIST => {
                    self.nested(descriptor, names, depth)?;
                }
                MediaType::ImageManifest => self.described(descriptor, names)?,
                MediaType::Other(image) if image == DOCKER_MANIFEST => {
                    self.described(descriptor, names)?;
                }
                // Signatures and the like.
                _ => {}
            }
        }
        Ok(())
    }

    /// Bounds the work, however indexes refer to each other.
    fn count(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > INDEX_ENTRIES {
            return Err(Error::TooLarge {
                what: "the number of entries of the index, with those within it,".to_owned(),
                limit: INDEX_ENTRIES.to_string(),
            });
        }
        Ok(())
    }

    fn nested(
        &mut self,
        descriptor: &Descriptor,
        names: &[String],
        depth: usize,
    ) -> Result<(), Error> {
        let size = Some(descriptor.size());
        let what = "an index within the index";
        let bytes = read_document(self.blobs, what, descriptor.digest(), size, self.limits)?;
        self.index(document::parse(what, &bytes)?, names, depth + 1)
    }

    fn described(&mut self, descriptor: &Descriptor, names: &[String]) -> Result<(), Error> {
        let mut names = names.to_vec();
        names.push(descriptor.digest().to_string());
        let other = self.other_platform(descriptor);
        // Attestations have a platform that no machine has.
        if other.as_deref() == Some("unknown/unknown") {
            return Ok(());
        }
        if !self.selection.name.matches(&names) {
            self.skip(&names);
            return Ok(());
        }
        if let Some(other) = other {
            self.others.push(other);
            return Ok(());
        }
        self.check_size(descriptor)?;
        self.read(descriptor.digest(), names)
    }

    /// Records an image that is not selected.
    pub(crate) fn skip(&mut self, names: &[String]) {
        self.skipped.push(shown(names));
    }

    /// Reads an image; the last of its names is its digest.
    pub(crate) fn read(&mut self, digest: &Digest, names: Vec<String>) -> Result<(), Error> {
        if self.fitting.iter().any(|(_, it)| it.digest == *digest) {
            return Ok(());
        }
        let image = Image::read(self.blobs, digest, self.limits)?;
        let actual = image.platform();
        if actual == *self.selection.platform {
            self.fitting.push((names, image));
        } else {
            self.others.push(actual.to_string());
        }
        Ok(())
    }

    /// The descriptor's platform if it is a different one.
    fn other_platform(&self, descriptor: &Descriptor) -> Option<String> {
        let platform = descriptor.platform().as_ref()?;
        let (os, architecture) = (
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        let platform = Platform { os, architecture };
        (platform != *self.selection.platform).then(|| platform.to_string())
    }

    fn check_size(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let what = || "the image's manifest".to_owned();
        let digest: &Digest = descriptor.digest();
        match self.blobs.find(digest)? {
            None => Err(Error::BlobMissing {
                what: what(),
                digest: digest.clone(),
            }),
            Some((_, actual)) if actual != descriptor.size() => Err(Error::SizeMismatch {
                what: what(),
                expected: descriptor.size(),
                actual,
            }),
            Some(_) => Ok(()),
        }
    }

    /// The one matching image; `document` is the document that listed it.
    pub(crate) fn result(mut self, document: &str) -> Result<Image, Error> {
        if self.fitting.len() > 1 {
            let names = self.fitting.iter().map(|(names, _)| shown(names));
            return Err(Error::SeveralImages {
                names: names.collect(),
            });
        }
        if let Some((_, image)) = self.fitting.pop() {
            return Ok(image);
        }
        for names in [&mut self.others, &mut self.skipped] {
            names.sort();
            names.dedup();
        }
        if !self.others.is_empty() {
            return Err(Error::WrongArchitecture {
                has: self.others,
                wanted: self.selection.platform.to_string(),
            });
        }
        match self.selection.name.name() {
            Some(wanted) if !self.skipped.is_empty() => Err(Error::NoSuchImage {
                wanted: wanted.to_owned(),
                names: self.skipped,
            }),
            _ => Err(Error::malformed(document, "it names no container image")),
        }
    }
}

/// The image's most readable name; its digest if it has none.
fn shown(names: &[String]) -> String {
    names.first().cloned().unwrap_or_default()
}
