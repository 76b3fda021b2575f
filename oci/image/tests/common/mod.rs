//! Shared by the tests: a store, layers, and small images.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::{fs, path::PathBuf};

use tempfile::TempDir;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_oci_image::{Error, Image, Layers, Limits, Platform, Store};

/// A test's own store and layers.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
    pub(crate) layers: Layers,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), limits.clone()).unwrap();
        let layers = Layers::open(&directory.path().join("layers"), limits).unwrap();
        Self {
            directory,
            store,
            layers,
        }
    }

    pub(crate) fn import(&self, layout: &Layout) -> Result<Image, Error> {
        self.store
            .import_archive(&layout.archive().unwrap()[..], &platform())
    }

    /// Unpacks every layer; returns their directories, lowest first.
    pub(crate) fn unpack(&self, image: &Image) -> Result<Vec<PathBuf>, Error> {
        let layers = image.layers();
        layers
            .iter()
            .map(|(layer, id)| self.layers.unpack(&self.store, layer, id))
            .collect()
    }

    /// The number of blobs.
    pub(crate) fn blobs(&self) -> usize {
        count(self.directory.path().join("store/blobs/sha256"))
    }

    /// The number of incomplete blobs and layers.
    pub(crate) fn unfinished(&self) -> usize {
        let layers = fs::read_dir(self.directory.path().join("layers")).unwrap();
        let unfinished = layers.filter(|layer| {
            layer
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with('.')
        });
        unfinished.count() + count(self.directory.path().join("store/ingest"))
    }
}

fn count(directory: PathBuf) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// A small image of two layers.
pub(crate) fn hello() -> Layout {
    let base = [
        Entry::directory("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/\n"),
    ];
    let program = [Entry::file("hello", vec![7; 3000]).mode(0o755)];
    image_of(&[&base, &program])
}

/// An image of these layers.
pub(crate) fn image_of(layers: &[&[Entry]]) -> Layout {
    let mut image = ImageSpec::new("hello");
    for layer in layers {
        image = image.layer(Layer::new(layer, Compression::Gzip).unwrap());
    }
    image.build().unwrap()
}

pub(crate) fn platform() -> Platform {
    Platform::host()
}
