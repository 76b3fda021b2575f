//! Oversized images and indexes without an image are refused in bounded memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::thread;

use common::{Place, hello, image_of, platform};
use serde_json::json;
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, Layout,
    layout::{blob_path, sha256},
};

fn refused(layout: &Layout) -> (&'static str, String) {
    let place = Place::new();
    let error = place.import(layout).unwrap_err();
    assert_eq!((place.blobs(), place.unfinished()), (0, 0), "{error}");
    (error.code(), error.to_string())
}

/// A layer that repeats the same bytes, as one zstd stream of many frames, which is small and quick to make.
fn repeated(bytes: &[u8], times: usize) -> Layer {
    Layer {
        blob: Compression::Zstd.compress(bytes).unwrap().repeat(times),
        diff_id: sha256(b"whatever"),
        compression: Compression::Zstd,
    }
}

#[test]
fn ten_million_entries() {
    let header = &Layer::new(&[Entry::file("f", "")], Compression::None)
        .unwrap()
        .blob[..512];
    let layer = repeated(&header.repeat(100_000), 100);
    assert!(layer.blob.len() < 1 << 20);
    let (code, text) = refused(&ImageSpec::new("x").layer(layer).build().unwrap());
    assert_eq!(code, "too_large");
    assert!(text.contains("entries"), "{text}");
}

#[test]
fn a_million_extensions_of_one_header() {
    let global = Layer::new(&[Entry::file("f", "").pax("a", "b")], Compression::None).unwrap();
    let layer = repeated(&global.blob[..1024].repeat(10_000), 100);
    let (code, text) = refused(&ImageSpec::new("x").layer(layer).build().unwrap());
    assert_eq!(code, "malformed", "{text}");
    assert!(text.contains("header extensions"), "{text}");
}

#[test]
fn a_manifest_of_100_mib() {
    let padded = |document: &str| {
        let mut bytes = document.as_bytes().to_vec();
        bytes.resize(100 << 20, b' ');
        bytes
    };
    let mut index = hello();
    index.files.insert("index.json".to_owned(), padded("{}"));
    assert_eq!(refused(&index).0, "too_large");
    let mut manifest = hello();
    let bytes = padded("{}");
    let digest = sha256(&bytes);
    let entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": bytes.len(),
    });
    let text = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    manifest.files.insert(blob_path(&digest), bytes);
    manifest
        .files
        .insert("index.json".to_owned(), text.into_bytes());
    let (code, text) = refused(&manifest);
    assert_eq!(code, "too_large");
    assert!(text.contains("manifest"), "{text}");
}

#[test]
fn indexes_that_refer_to_each_other() {
    // An index cannot contain its own digest: a false one is detected.
    let (a, b) = (sha256(b"a"), sha256(b"b"));
    let to = |digest: &str, bytes: usize| {
        json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest,
            "size": bytes,
        }] })
        .to_string()
        .into_bytes()
    };
    let bytes = to(&a, 300).len();
    let mut layout = hello();
    layout.files.insert(blob_path(&a), to(&b, bytes));
    layout.files.insert(blob_path(&b), to(&a, bytes));
    layout.files.insert("index.json".to_owned(), to(&a, bytes));
    assert_eq!(refused(&layout).0, "digest_mismatch");
}

#[test]
fn concurrent_imports_of_one_image_store_it_once() {
    let place = Place::new();
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let archive = image_of(&[&[Entry::file("f", noise)]]).archive().unwrap();
    let image = place
        .store
        .import_archive(&archive[..], &platform())
        .unwrap();
    let layer = image.manifest.layers()[0].digest();
    let (mut file, _) = place.store.open_blob(layer).unwrap();
    let mut blob = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut blob).unwrap();
    place.store.retain(&[]).unwrap();
    thread::scope(|scope| {
        for number in 0..9 {
            let (place, archive, blob) = (&place, &archive, &blob);
            scope.spawn(move || match number % 3 {
                0 => drop(
                    place
                        .store
                        .import_archive(&archive[..], &platform())
                        .unwrap(),
                ),
                1 => place.store.ingest_blob(layer, &blob[..]).unwrap(),
                _ => {
                    let mut upload = place.store.begin_upload().unwrap();
                    for piece in blob.chunks(10_000) {
                        upload.write(piece).unwrap();
                    }
                    place.store.finish_upload(upload, layer).unwrap();
                }
            });
        }
    });
    assert_eq!((place.blobs(), place.unfinished()), (3, 0));
    for digest in image.blobs() {
        place.store.verify_blob(&digest).unwrap();
    }
}
