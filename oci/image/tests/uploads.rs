//! Uploads of single blobs, as by a registry: no incomplete blob is visible, and an image is checked afterwards like one
//! of an archive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;

use common::{Place, hello, platform};
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, Layout,
    layout::{blob_path, sha256},
};
use tucano_oci_image::{Digest, Error, Image, Limits, Platform, Store, digest_of};

/// Stores every blob of the layout, and resolves `document`.
fn push(place: &Place, layout: &Layout, document: &str) -> Result<Image, Error> {
    for (path, content) in &layout.files {
        if path.starts_with("blobs/") {
            put(&place.store, content, &digest_of(content))?;
        }
    }
    place.store.resolve(&document.parse().unwrap(), &platform())
}

fn put(store: &Store, content: &[u8], digest: &Digest) -> Result<(), Error> {
    let mut upload = store.begin_upload()?;
    for piece in content.chunks(100) {
        upload.write(piece)?;
    }
    assert_eq!(upload.bytes(), content.len() as u64);
    store.finish_upload(upload, digest)
}

#[test]
fn an_uploaded_blob_is_visible_when_it_is_finished() {
    let place = Place::new();
    let digest = digest_of(b"hello");
    let mut upload = place.store.begin_upload().unwrap();
    upload.write(b"hel").unwrap();
    assert_eq!((place.blobs(), place.unfinished()), (0, 1));
    upload.write(b"lo").unwrap();
    place.store.finish_upload(upload, &digest).unwrap();
    assert_eq!((place.blobs(), place.unfinished()), (1, 0));
    assert_eq!(place.store.open_blob(&digest).unwrap().1, 5);
    put(&place.store, b"hello", &digest).unwrap();
    assert_eq!(place.blobs(), 1);
}

#[test]
fn an_aborted_or_wrong_upload_leaves_no_trace() {
    let place = Place::new();
    let error = put(&place.store, b"hello", &digest_of(b"other")).unwrap_err();
    assert_eq!(error.code(), "digest_mismatch");
    drop(place.store.begin_upload().unwrap());
    let longer: Digest = format!("sha384:{}", "0".repeat(96)).parse().unwrap();
    let error = put(&place.store, b"hello", &longer).unwrap_err();
    assert_eq!(error.code(), "unsupported");
    assert_eq!((place.blobs(), place.unfinished()), (0, 0));
}

#[test]
fn a_manifest_or_an_index_resolves_to_the_image_for_the_platform() {
    let place = Place::new();
    let layout = hello();
    let image = push(&place, &layout, &layout.manifest_digest).unwrap();
    assert_eq!(image.digest.to_string(), layout.manifest_digest);
    place.store.verify(&image).unwrap();
    let index = &layout.files["index.json"];
    put(&place.store, index, &digest_of(index)).unwrap();
    let by_index = place.store.resolve(&digest_of(index), &platform()).unwrap();
    assert_eq!(by_index.digest, image.digest);
    let elsewhere = Platform {
        os: "linux".to_owned(),
        architecture: "s390x".to_owned(),
    };
    for document in [&image.digest, &digest_of(index)] {
        let error = place.store.resolve(document, &elsewhere).unwrap_err();
        assert_eq!(error.code(), "wrong_architecture", "{error}");
    }
}

#[test]
fn a_document_that_is_both_manifest_and_index_is_refused() {
    let place = Place::new();
    for (document, code) in [
        (
            r#"{"schemaVersion":2,"manifests":[],"config":{}}"#,
            "malformed",
        ),
        (r#"{"schemaVersion":2}"#, "malformed"),
        ("not JSON", "malformed"),
    ] {
        let digest = digest_of(document.as_bytes());
        put(&place.store, document.as_bytes(), &digest).unwrap();
        let error = place.store.resolve(&digest, &platform()).unwrap_err();
        assert_eq!(error.code(), code, "{document}: {error}");
    }
    let absent = place.store.resolve(&digest_of(b"absent"), &platform());
    assert_eq!(absent.unwrap_err().code(), "not_found");
}

#[test]
fn separately_pushed_layers_are_checked() {
    let place = Place::new();
    let layer = |name: &str| Layer::new(&[Entry::file(name, "x")], Compression::Gzip).unwrap();
    let wrong_diff_id = format!("sha256:{}", "0".repeat(64));
    let spec = ImageSpec::new("x")
        .layer(layer("x"))
        .edit_config(move |config| config["rootfs"]["diff_ids"][0] = wrong_diff_id.as_str().into());
    let escaping = ImageSpec::new("x").layer(layer("../x"));
    for (spec, code) in [(spec, "digest_mismatch"), (escaping, "layer_path_escapes")] {
        let layout = spec.build().unwrap();
        let image = push(&place, &layout, &layout.manifest_digest).unwrap();
        assert_eq!(place.store.verify(&image).unwrap_err().code(), code);
    }
    let mut layout = hello();
    let image = place.import(&layout).unwrap();
    let missing = blob_path(image.manifest.layers()[0].digest().as_ref());
    layout.files.remove(&missing).unwrap();
    let other = Place::new();
    let image = push(&other, &layout, &layout.manifest_digest).unwrap();
    assert_eq!(other.store.verify(&image).unwrap_err().code(), "not_found");
}

#[test]
fn additional_blobs_are_kept() {
    let place = Place::new();
    for content in ["a", "b"] {
        put(
            &place.store,
            content.as_bytes(),
            &digest_of(content.as_bytes()),
        )
        .unwrap();
    }
    let upload = place.store.begin_upload().unwrap();
    let kept = HashSet::from([digest_of(b"a")]);
    assert_eq!(place.store.retain_with(&[], kept).unwrap(), 1);
    assert!(place.store.contains(&digest_of(b"a")));
    assert_eq!((place.blobs(), place.unfinished()), (1, 1));
    drop(upload);
}

#[test]
fn unfinished_uploads_are_removed_at_the_next_start() {
    let place = Place::new();
    let root = place.directory.path().join("store");
    let abandoned = root.join("ingest/.tmp-killed");
    std::fs::create_dir(&abandoned).unwrap();
    std::fs::write(abandoned.join("blob"), "half of i").unwrap();
    assert_eq!(place.unfinished(), 1);
    let reopened = Store::open(&root, Limits::default()).unwrap();
    assert_eq!(place.unfinished(), 0);
    assert!(!reopened.contains(&sha256(b"half of i").parse().unwrap()));
}
