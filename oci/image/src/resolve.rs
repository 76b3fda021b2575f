//! From a layout's index to the one image for this machine.

use oci_spec::image::{Descriptor, Digest, ImageIndex, MediaType};

use crate::{
    document,
    error::Error,
    image::{Image, Platform, read_document},
    ingest::Blobs,
    limits::{INDEX_DEPTH, Limits},
};

const NAME: &str = "org.opencontainers.image.ref.name";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The one image of the index that is for `platform`.
pub(crate) fn resolve(
    blobs: &dyn Blobs,
    index: &[u8],
    platform: &Platform,
    limits: &Limits,
) -> Result<Image, Error> {
    let mut search = Search {
        blobs,
        platform,
        limits,
        fitting: Vec::new(),
        others: Vec::new(),
    };
    search.index(document::parse("index.json", index)?, None, 0)?;
    search.verdict()
}

struct Search<'a> {
    blobs: &'a dyn Blobs,
    platform: &'a Platform,
    limits: &'a Limits,
    /// Images for the platform, each with a name for people.
    fitting: Vec<(String, Image)>,
    /// The platforms of the other images.
    others: Vec<String>,
}

impl Search<'_> {
    fn index(&mut self, index: ImageIndex, name: Option<&str>, depth: usize) -> Result<(), Error> {
        if index.schema_version() != 2 {
            return Err(Error::malformed("the index", "its schemaVersion is not 2"));
        }
        if depth > INDEX_DEPTH {
            let reason = format!("indexes within indexes are deeper than {INDEX_DEPTH}");
            return Err(Error::malformed("the index", reason));
        }
        for descriptor in index.manifests() {
            let own = descriptor
                .annotations()
                .as_ref()
                .and_then(|it| it.get(NAME));
            let name = own.map(String::as_str).or(name);
            match descriptor.media_type() {
                MediaType::ImageIndex => self.nested(descriptor, name, depth)?,
                MediaType::Other(list) if list == DOCKER_LIST => {
                    self.nested(descriptor, name, depth)?;
                }
                MediaType::ImageManifest => self.image(descriptor, name)?,
                MediaType::Other(image) if image == DOCKER_MANIFEST => {
                    self.image(descriptor, name)?;
                }
                // Signatures and the like.
                _ => {}
            }
        }
        Ok(())
    }

    fn nested(
        &mut self,
        descriptor: &Descriptor,
        name: Option<&str>,
        depth: usize,
    ) -> Result<(), Error> {
        let size = Some(descriptor.size());
        let what = "an index within the index";
        let bytes = read_document(self.blobs, what, descriptor.digest(), size, self.limits)?;
        self.index(document::parse(what, &bytes)?, name, depth + 1)
    }

    fn image(&mut self, descriptor: &Descriptor, name: Option<&str>) -> Result<(), Error> {
        if let Some(other) = self.other_platform(descriptor) {
            // Attestations go by a platform that no machine has.
            if other != "unknown/unknown" {
                self.others.push(other);
            }
            return Ok(());
        }
        let digest = descriptor.digest();
        if self
            .fitting
            .iter()
            .any(|(_, image)| image.digest == *digest)
        {
            return Ok(());
        }
        self.check_size(descriptor)?;
        let image = Image::read(self.blobs, digest, self.limits)?;
        let actual = image.platform();
        if actual == *self.platform {
            let name = name.map_or_else(|| digest.to_string(), str::to_owned);
            self.fitting.push((name, image));
        } else {
            self.others.push(actual.to_string());
        }
        Ok(())
    }

    /// The descriptor's platform where it has one and it is another.
    fn other_platform(&self, descriptor: &Descriptor) -> Option<String> {
        let platform = descriptor.platform().as_ref()?;
        let (os, architecture) = (
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        let platform = Platform { os, architecture };
        (platform != *self.platform).then(|| platform.to_string())
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

    fn verdict(mut self) -> Result<Image, Error> {
        if self.fitting.len() > 1 {
            let names = self.fitting.into_iter().map(|(name, _)| name).collect();
            return Err(Error::SeveralImages { names });
        }
        self.others.sort();
        self.others.dedup();
        match (self.fitting.pop(), self.others.is_empty()) {
            (Some((_, image)), _) => Ok(image),
            (None, false) => {
                let wanted = self.platform.to_string();
                Err(Error::WrongArchitecture {
                    has: self.others,
                    wanted,
                })
            }
            (None, true) => Err(Error::malformed(
                "index.json",
                "it names no container image",
            )),
        }
    }
}
