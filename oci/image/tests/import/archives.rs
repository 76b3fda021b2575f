//! Which archives are imported, and what happens to incomplete or damaged ones.

use std::io::{self, Read};

use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer,
    layout::{archive_of, blob_path, sha256},
};
use tucano_oci_image::Limits;

use crate::common::{Place, hello, platform};
use crate::{import, refused, with_index};

#[test]
fn an_imported_image_is_found_in_the_store() {
    let place = Place::new();
    let layout = hello();
    let image = place.import(&layout).unwrap();
    assert_eq!(image.digest.to_string(), layout.manifest_digest);
    assert_eq!(
        (image.layers().len(), image.blobs().len(), place.blobs()),
        (2, 4, 4)
    );
    let again = place.store.image(&image.digest).unwrap();
    assert_eq!(
        (again.manifest, again.config),
        (image.manifest.clone(), image.config.clone())
    );
    for blob in image.blobs() {
        assert!(place.store.contains(&blob));
        let (mut file, bytes) = place.store.open_blob(&blob).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(
            (content.len() as u64, sha256(&content)),
            (bytes, blob.to_string())
        );
    }
    assert_eq!(place.unfinished(), 0);
    // A second import succeeds.
    assert_eq!(place.import(&layout).unwrap().digest, image.digest);
    assert_eq!((place.blobs(), place.unfinished()), (4, 0));
}

#[test]
fn every_layer_encoding_is_accepted() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layer = Layer::new(&[Entry::file("f", vec![5; 100_000])], compression).unwrap();
        let layout = ImageSpec::new("x").layer(layer).build().unwrap();
        assert!(Place::new().import(&layout).is_ok(), "{compression:?}");
    }
}

#[test]
fn docker_media_types_are_accepted() {
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let layout = ImageSpec::new("x")
        .layer(layer)
        .edit_manifest(move |manifest| {
            manifest["mediaType"] = docker.into();
            manifest["config"]["mediaType"] =
                "application/vnd.docker.container.image.v1+json".into();
            manifest["layers"][0]["mediaType"] =
                "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        });
    let layout = with_index(layout.build().unwrap(), |index| {
        index["manifests"][0]["mediaType"] = docker.into();
    });
    assert!(Place::new().import(&layout).is_ok());
}

#[test]
fn files_may_have_any_order_and_prefix() {
    let layout = hello();
    let mut files: Vec<(String, &[u8])> = layout
        .files
        .iter()
        .map(|(path, content)| (format!("./{path}"), &content[..]))
        .collect();
    files.push(("./README".to_owned(), b"not ours"));
    for turn in 0..files.len() {
        files.rotate_left(1);
        let archive: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, content)| (path.as_str(), *content))
            .collect();
        let place = Place::new();
        assert!(
            import(&place, &archive_of(&archive).unwrap()).is_ok(),
            "order {turn}"
        );
        assert_eq!(place.blobs(), 4);
    }
}

#[test]
fn a_compressed_archive_is_accepted() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let plain = hello().archive().unwrap();
        let archive = compression.compress(&plain).unwrap();
        assert!(import(&Place::new(), &archive).is_ok());
        let (code, text) = refused(&Place::new(), &archive[..archive.len() / 2]);
        assert_eq!(code, "archive_truncated", "{compression:?}: {text}");
        let mut damaged = archive.clone();
        damaged[archive.len() / 2] ^= 0x10;
        assert!(import(&Place::new(), &damaged).is_err());
        let place = Place::with(Limits {
            archive_bytes: 1 << 20,
            ..Limits::default()
        });
        let bomb = compression
            .compress(&[plain, vec![0; 3 << 20]].concat())
            .unwrap();
        assert!(bomb.len() < 1 << 20);
        assert_eq!(refused(&place, &bomb).0, "too_large", "{compression:?}");
    }
}

#[test]
fn a_truncated_compressed_upload_is_distinguished_from_a_damaged_one() {
    let archive = Compression::Zstd
        .compress(&hello().archive().unwrap())
        .unwrap();
    let broken = Broken(&archive[..archive.len() / 2], io::ErrorKind::Other);
    let error = Place::new()
        .store
        .import_archive(broken, &platform())
        .unwrap_err();
    assert_eq!(error.code(), "io", "{error}");
    let junk = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0xff; 100]].concat();
    assert_eq!(refused(&Place::new(), &junk).0, "malformed");
}

#[test]
fn other_compressions_are_refused_by_name() {
    for (magic, name) in [
        (&b"\xfd7zXZ\0 and more"[..], "xz"),
        (b"BZh91AY and more", "bzip2"),
    ] {
        let (code, text) = refused(&Place::new(), magic);
        assert_eq!(code, "unsupported");
        assert!(
            text.contains(name) && text.contains("gzip or zstd"),
            "{text}"
        );
    }
}

#[test]
fn a_zstd_window_over_the_limit_is_refused() {
    // A frame header with a window of 2^30 bytes (RFC 8878, 3.1.1.1.2).
    let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0, 0, 0, 0, 0];
    let (code, text) = refused(&Place::new(), &greedy);
    assert_eq!(code, "too_large");
    assert!(
        text.contains("zstd window") && text.contains("128 MiB"),
        "{text}"
    );
}

#[test]
fn unreferenced_blobs_are_not_stored() {
    let mut layout = hello();
    layout
        .files
        .insert(blob_path(&sha256(b"spare")), b"spare".to_vec());
    let place = Place::new();
    place.import(&layout).unwrap();
    assert_eq!(place.blobs(), 4);
}

#[test]
fn a_truncated_archive_is_refused() {
    let layout = hello();
    let archive = layout.archive().unwrap();
    // The first block of zeros ends the archive; the rest has no content.
    let content = archive.len() - 1024;
    for length in (1..=content).step_by(97).chain([content]) {
        let place = Place::new();
        let (code, text) = refused(&place, &archive[..length]);
        let expected = if length < 512 {
            "malformed"
        } else {
            "archive_truncated"
        };
        assert_eq!(code, expected, "cut at {length}: {text}");
    }
}

#[test]
fn a_flipped_bit_is_detected() {
    let layout = hello();
    let archive = layout.archive().unwrap();
    let expected = layout.manifest_digest.clone();
    for at in (0..archive.len() - 1024).step_by(61) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x04;
        let place = Place::new();
        // Padding and owners have no effect: the image is the same then.
        match import(&place, &damaged) {
            Ok(digest) => assert_eq!(digest.to_string(), expected, "byte {at}"),
            Err(error) => {
                assert_eq!(
                    (place.blobs(), place.unfinished()),
                    (0, 0),
                    "byte {at}: {error}"
                );
            }
        }
    }
}

#[test]
fn an_archive_over_the_limit_is_refused() {
    let archive = hello().archive().unwrap();
    let with = |archive_bytes| {
        Place::with(Limits {
            archive_bytes,
            ..Limits::default()
        })
    };
    assert!(import(&with(archive.len() as u64), &archive).is_ok());
    let (code, text) = refused(&with(archive.len() as u64 - 1), &archive);
    assert_eq!(code, "too_large", "{text}");
    let files = Place::with(Limits {
        layer_entries: 3,
        ..Limits::default()
    });
    assert_eq!(refused(&files, &archive).0, "too_large");
    let documents = Place::with(Limits {
        document_bytes: 50,
        ..Limits::default()
    });
    assert_eq!(refused(&documents, &archive).0, "too_large");
}

/// A stream with an error at its end.
struct Broken<'a>(&'a [u8], io::ErrorKind);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(self.1.into()),
            read => Ok(read),
        }
    }
}

#[test]
fn a_broken_upload_leaves_no_trace() {
    let archive = hello().archive().unwrap();
    for (kind, code) in [
        (io::ErrorKind::UnexpectedEof, "archive_truncated"),
        (io::ErrorKind::ConnectionReset, "archive_truncated"),
        (io::ErrorKind::Other, "io"),
    ] {
        let place = Place::new();
        let broken = Broken(&archive[..archive.len() / 2], kind);
        let error = place.store.import_archive(broken, &platform()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!((place.blobs(), place.unfinished()), (0, 0));
    }
}
