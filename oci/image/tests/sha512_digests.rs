//! SHA-512 digests of every part of an image, in every kind of import.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Place, hello, platform};
use oci_spec::image::Digest;
use sha2::{Digest as _, Sha512};
use tucano_image_builder::Layout;
use tucano_testkit::{ROOT, needs};

fn sha512(bytes: &[u8]) -> String {
    let hash = Sha512::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same image with SHA-512 digests for blobs and diff-ids.
fn by_sha512(layout: &Layout) -> Layout {
    let mut layout = layout.clone();
    let text = |layout: &Layout, path: &str| String::from_utf8(layout.files[path].clone()).unwrap();
    let digests = |text: &str| -> Vec<String> {
        let parts = text.split("sha256:").skip(1);
        parts.map(|part| part[..64].to_owned()).collect()
    };
    let index = text(&layout, "index.json");
    let manifest_hex = digests(&index).remove(0);
    let mut manifest = text(&layout, &format!("blobs/sha256/{manifest_hex}"));
    let mut parts = digests(&manifest);
    let config_hex = parts.remove(0);
    let mut config = text(&layout, &format!("blobs/sha256/{config_hex}"));
    for (layer, diff_id) in parts.iter().zip(digests(&config)) {
        let blob = layout
            .files
            .remove(&format!("blobs/sha256/{layer}"))
            .unwrap();
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&blob[..]), &mut tar).unwrap();
        config = config.replace(
            &format!("sha256:{diff_id}"),
            &format!("sha512:{}", sha512(&tar)),
        );
        manifest = manifest.replace(
            &format!("sha256:{layer}"),
            &format!("sha512:{}", sha512(&blob)),
        );
        layout
            .files
            .insert(format!("blobs/sha512/{}", sha512(&blob)), blob);
    }
    let size = |text: &str| format!("\"size\":{}", text.len());
    let old_config = &layout.files[&format!("blobs/sha256/{config_hex}")];
    let config_size = format!("\"size\":{}", old_config.len());
    manifest = manifest
        .replace(
            &format!("sha256:{config_hex}"),
            &format!("sha512:{}", sha512(config.as_bytes())),
        )
        .replacen(&config_size, &size(&config), 1);
    let old_manifest = text(&layout, &format!("blobs/sha256/{manifest_hex}"));
    let index = index
        .replace(
            &format!("sha256:{manifest_hex}"),
            &format!("sha512:{}", sha512(manifest.as_bytes())),
        )
        .replacen(&size(&old_manifest), &size(&manifest), 1);
    layout
        .files
        .retain(|path, _| !path.starts_with("blobs/sha256/"));
    for document in [config, manifest] {
        let path = format!("blobs/sha512/{}", sha512(document.as_bytes()));
        layout.files.insert(path, document.into_bytes());
    }
    layout
        .files
        .insert("index.json".to_owned(), index.into_bytes());
    layout
}

fn blobs(place: &Place, algorithm: &str) -> usize {
    let directory = place.directory.path().join("store/blobs").join(algorithm);
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn in_an_archive_and_in_a_directory() {
    let layout = by_sha512(&hello());
    let place = Place::new();
    let image = place.import(&layout).unwrap();
    assert!(image.digest.to_string().starts_with("sha512:"));
    assert_eq!((blobs(&place, "sha512"), blobs(&place, "sha256")), (4, 0));
    for blob in image.blobs() {
        assert!(place.store.verify_blob(&blob).is_ok());
    }
    if needs(&[ROOT]) {
        let layers = place.unpack(&image).unwrap();
        assert!(layers[0].join("etc/passwd").is_file() && layers[1].join("hello").is_file());
        place.layers.retain(&[image.layers()[1].1.clone()]).unwrap();
        assert!(!layers[0].exists() && layers[1].exists());
    }
    assert!(place.store.retain(&[]).unwrap() > 0);
    assert_eq!((blobs(&place, "sha512"), place.unfinished()), (0, 0));

    let directory = tempfile::tempdir().unwrap();
    layout.write_directory(directory.path()).unwrap();
    let again = place
        .store
        .import_directory(directory.path(), &platform(), None);
    assert_eq!(again.unwrap().digest, image.digest);
}

#[test]
fn content_with_another_digest_is_refused() {
    let whole = by_sha512(&hello());
    for path in whole.files.keys().filter(|path| path.starts_with("blobs/")) {
        let mut layout = whole.clone();
        layout.files.get_mut(path).unwrap()[10] ^= 1;
        let place = Place::new();
        let error = place.import(&layout).unwrap_err();
        assert_eq!(error.code(), "digest_mismatch", "{path}: {error}");
        assert_eq!((blobs(&place, "sha512"), place.unfinished()), (0, 0));
    }
}

#[test]
fn in_an_upload() {
    let place = Place::new();
    let digest: Digest = format!("sha512:{}", sha512(b"in pieces")).parse().unwrap();
    for (content, is_right) in [("in pieces", true), ("otherwise", false)] {
        let mut upload = place.store.begin_upload().unwrap();
        let (first, rest) = content.split_at(4);
        upload.write(first.as_bytes()).unwrap();
        upload.write(rest.as_bytes()).unwrap();
        let finished = place.store.finish_upload(upload, &digest);
        assert_eq!(finished.is_ok(), is_right, "{content}");
    }
    assert_eq!(place.store.verify_blob(&digest).unwrap(), 9);
    place.store.ingest_blob(&digest, &b"in pieces"[..]).unwrap();
    assert_eq!(place.unfinished(), 0);
}
