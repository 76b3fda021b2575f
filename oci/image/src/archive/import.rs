//! The store's imports.

use std::{io::Read, path::Path};

use oci_spec::image::{Descriptor, Digest};

use super::layout;
use crate::{
    content::{ingest::Ingest, pending::BlobListener, store::Store},
    error::Error,
    layer::{LayerBlob, LayerSpec},
    limits::Limits,
    manifest::{
        image::{Image, Platform},
        layout_index::Selection,
        names::NameFilter,
    },
    parallel,
};

impl Store {
    /// Imports an archive: an OCI layout as a tar stream, or the output of `docker save` or `podman save`; plain, or
    /// compressed with gzip or zstd. Each blob's digest, every layer's diff-id and every path in it are checked. Nothing
    /// is visible until the image is complete and synced. Returns the image for `platform`.
    ///
    /// # Errors
    /// See [`Error::code`]. No trace of the archive remains then.
    pub fn import_archive(&self, archive: impl Read, platform: &Platform) -> Result<Image, Error> {
        self.import_archive_named(archive, platform, None)
    }

    /// Like [`Store::import_archive`], of an archive that may hold several images: takes the one with this name, which
    /// is a tag, `name:tag`, `name` (with the tag `latest`), with or without its registry, or its digest.
    ///
    /// # Errors
    /// `no_such_image` with the existing names if no image has this name, `several_images` if there is more than one
    /// to choose from; otherwise see [`Error::code`]. No trace of the archive remains then.
    pub fn import_archive_named(
        &self,
        archive: impl Read,
        platform: &Platform,
        name: Option<&str>,
    ) -> Result<Image, Error> {
        self.import_archive_with_listener(archive, platform, name, None)
    }

    /// Like [`Store::import_archive_named`]; `listener` is called for each blob, with its size in bytes, as soon as the
    /// blob is complete and checked. Until the import ends, [`Store::open_pending`] opens that blob.
    ///
    /// # Errors
    /// As [`Store::import_archive_named`].
    pub fn import_archive_with_listener(
        &self,
        archive: impl Read,
        platform: &Platform,
        name: Option<&str>,
        listener: Option<BlobListener>,
    ) -> Result<Image, Error> {
        let selection = Selection {
            platform,
            name: NameFilter::new(name),
        };
        self.import(|ingest, limits| {
            if let Some(listener) = listener {
                ingest.announce(self.announcer(listener));
            }
            super::receive(archive, ingest, selection, limits, self.outlines())
        })
    }

    /// Imports an image from a directory that is an OCI layout, with the checks of an archive; `name` as for
    /// [`Store::import_archive_named`].
    ///
    /// # Errors
    /// As for an archive.
    pub fn import_directory(
        &self,
        directory: &Path,
        platform: &Platform,
        name: Option<&str>,
    ) -> Result<Image, Error> {
        let selection = Selection {
            platform,
            name: NameFilter::new(name),
        };
        self.import(|ingest, limits| {
            layout::receive(directory, ingest, selection, limits, self.outlines())
        })
    }

    /// Checks the layers of an image whose blobs were stored one by one, as an import checks those of an archive: each
    /// layer's digest and diff-id, and every path in it. Reads all of them.
    ///
    /// # Errors
    /// The first layer that is wrong, and why.
    pub fn verify(&self, image: &Image) -> Result<(), Error> {
        let read = parallel::for_each(&image.layers(), |(descriptor, diff_id)| {
            self.layer(descriptor, diff_id, self.limits())?
                .check(self.outlines())
        });
        self.removing_damaged(read.map(drop), &image.blobs())
    }

    /// A stored layer, ready to be read.
    pub(crate) fn layer<'a>(
        &self,
        descriptor: &'a Descriptor,
        diff_id: &'a Digest,
        limits: &'a Limits,
    ) -> Result<LayerBlob<'a>, Error> {
        Ok(LayerBlob {
            path: self.blob_path(descriptor.digest())?,
            layer: LayerSpec {
                descriptor,
                diff_id: Some(diff_id),
                limits,
            },
        })
    }

    fn import(
        &self,
        receive: impl FnOnce(&mut Ingest, &Limits) -> Result<Image, Error>,
    ) -> Result<Image, Error> {
        let mut ingest = self.new_ingest()?;
        let image = receive(&mut ingest, self.limits())?;
        // They were synced while they were checked.
        self.publish(&ingest, &image.blobs())?;
        Ok(image)
    }
}
