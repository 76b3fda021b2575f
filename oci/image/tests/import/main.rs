//! Imports: a complete image is stored, and an incomplete or invalid one leaves no trace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod documents;
mod random;
mod selection;
mod store;

use common::{Place, platform};
use serde_json::{Value, json};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_oci_image::{Digest, Error};

fn import(place: &Place, archive: &[u8]) -> Result<Digest, Error> {
    place
        .store
        .import_archive(archive, &platform())
        .map(|image| image.digest)
}

/// The error's code and text; checks that no trace remains.
fn refused(place: &Place, archive: &[u8]) -> (&'static str, String) {
    let error = import(place, archive).unwrap_err();
    assert_eq!((place.blobs(), place.unfinished()), (0, 0), "{error}");
    (error.code(), error.to_string())
}

/// The layout with a changed index.
fn with_index(mut layout: Layout, change: impl FnOnce(&mut Value)) -> Layout {
    let mut index = serde_json::from_slice(&layout.files["index.json"]).unwrap();
    change(&mut index);
    layout
        .files
        .insert("index.json".to_owned(), serde_json::to_vec(&index).unwrap());
    layout
}

/// One layout with all images.
fn together(layouts: &[Layout]) -> Layout {
    let mut all = layouts[0].clone();
    let index =
        |layout: &Layout| -> Value { serde_json::from_slice(&layout.files["index.json"]).unwrap() };
    let manifests: Vec<Value> = layouts
        .iter()
        .flat_map(|layout| index(layout)["manifests"].as_array().unwrap().clone())
        .collect();
    for layout in layouts {
        all.files.extend(layout.files.clone());
    }
    with_index(all, |index| index["manifests"] = json!(manifests))
}

fn image(architecture: &str, reference: &str) -> Layout {
    let layer = Layer::new(&[Entry::file(reference, "x")], Compression::Gzip).unwrap();
    let mut spec = ImageSpec::new("x").architecture(architecture).layer(layer);
    spec.reference = reference.to_owned();
    spec.build().unwrap()
}

fn own_architecture() -> String {
    platform().architecture
}
