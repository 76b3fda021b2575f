//! Where hostile bytes come in. Used by the fuzz targets, and by a test that runs everywhere: each entry panics if
//! something remains of what was refused, or if anything beside the store and the layers has changed.
#![allow(dead_code, reason = "each target uses one of these")]
#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use tempfile::TempDir;
use tucano_image_builder::{Compression, ImageSpec, Layer, layout::archive_of};
use tucano_oci_image::{Error, Form, Image, Layers, Limits, Platform, Store};

/// The bytes are an archive.
pub(crate) fn archive(bytes: &[u8]) {
    Place::new().take(bytes);
}

/// The bytes are a document of an archive that is whole otherwise: the first says which, the rest is its content.
pub(crate) fn documents(bytes: &[u8]) {
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    let layer = Layer::from_tar(&[0; 1024], Compression::None).unwrap();
    let manifest_of = |image: ImageSpec| image.layer(layer.clone()).build().unwrap();
    let mut layout = manifest_of(ImageSpec::new("x"));
    match which % 4 {
        0 => drop(
            layout
                .files
                .insert("index.json".to_owned(), content.to_vec()),
        ),
        1 => drop(
            layout
                .files
                .insert("oci-layout".to_owned(), content.to_vec()),
        ),
        2 => {
            layout.files.remove("oci-layout");
            layout
                .files
                .insert("manifest.json".to_owned(), content.to_vec());
        }
        _ => {
            // Under its true digest, with the index leading to it.
            let digest = tucano_image_builder::layout::sha256(content);
            let path = tucano_image_builder::layout::blob_path(&digest);
            layout.files.insert(path, content.to_vec());
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.{}.v1+json","digest":"{digest}","size":{}}}]}}"#,
                if which & 4 == 0 { "manifest" } else { "index" },
                content.len()
            );
            layout
                .files
                .insert("index.json".to_owned(), index.into_bytes());
        }
    }
    Place::new().take(&layout.archive().unwrap());
}

/// The bytes are a layer's tar.
pub(crate) fn layer(bytes: &[u8]) {
    let layer = Layer::from_tar(bytes, Compression::None).unwrap();
    let image = ImageSpec::new("x").layer(layer).build().unwrap();
    let files: Vec<(&str, &[u8])> = image
        .files
        .iter()
        .map(|(path, content)| (path.as_str(), &content[..]))
        .collect();
    Place::new().take(&archive_of(&files).unwrap());
}

/// A store and layers with a neighbour that must stay as it is.
struct Place {
    directory: TempDir,
    store: Store,
    layers: Layers,
}

const NEIGHBOUR: &str = "neighbour";

impl Place {
    fn new() -> Self {
        let limits = Limits {
            archive_bytes: 8 << 20,
            document_bytes: 64 << 10,
            layer_bytes: 8 << 20,
            layer_entries: 2_000,
            layers: 16,
            layer_xattr_bytes: 1 << 20,
            layer_tree_bytes: 8 << 20,
        };
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NEIGHBOUR), NEIGHBOUR).unwrap();
        Self {
            store: Store::open(&directory.path().join("store"), limits.clone()).unwrap(),
            layers: Layers::open(&directory.path().join("layers"), limits).unwrap(),
            directory,
        }
    }

    fn take(&self, archive: &[u8]) {
        match self.store.import_archive(archive, &Platform::host()) {
            Ok(image) => self.unpack(&image),
            Err(error) => {
                assert_told(&error);
                assert_eq!(count(&self.directory.path().join("store/blobs/sha256")), 0);
            }
        }
        let root = self.directory.path();
        assert_eq!(count(&root.join("store/ingest")), 0);
        assert_eq!(count(root), 3, "something was made beside");
        assert_eq!(fs::read_to_string(root.join(NEIGHBOUR)).unwrap(), NEIGHBOUR);
    }

    /// The same layers as images, which the kernel mounts; what becomes a directory becomes an image, too.
    fn index(&self, image: &Image, is_taken: bool) {
        let place = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let images = Layers::open_in_form(place.path(), limits, Form::Erofs).unwrap();
        let mounted = images.unpack_all(&self.store, &image.layers());
        assert!(mounted.is_ok() || !is_taken, "{mounted:?}");
        images.retain(&[]).unwrap();
        assert_eq!(count(place.path()), 0);
    }

    fn unpack(&self, image: &Image) {
        let layers = self.directory.path().join("layers");
        let unpacked = self.layers.unpack_all(&self.store, &image.layers());
        // Only root can mount.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            self.index(image, unpacked.is_ok());
        }
        match unpacked {
            Ok(directories) => assert_eq!(directories.len(), image.layers().len()),
            Err(error) => {
                assert_told(&error);
                assert_eq!(count(&layers), 0);
            }
        }
    }
}

fn assert_told(error: &Error) {
    assert!(!error.to_string().is_empty() && !error.code().is_empty());
    assert_ne!(error.code(), "disk_full");
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}
