//! Import: what comes in whole is there afterwards, and of what does not, no trace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{self, Read},
    thread,
};

use common::{Place, hello, image_of, platform};
use proptest::prelude::*;
use serde_json::{Value, json};
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, Layout,
    layout::{archive_of, blob_path, sha256},
};
use tucano_oci_image::{Digest, Error, Limits, Platform, Store};

fn import(place: &Place, archive: &[u8]) -> Result<Digest, Error> {
    place
        .store
        .import_archive(archive, &platform())
        .map(|image| image.digest)
}

/// The error's code and text; nothing may remain.
fn refused(place: &Place, archive: &[u8]) -> (&'static str, String) {
    let error = import(place, archive).unwrap_err();
    assert_eq!((place.blobs(), place.unfinished()), (0, 0), "{error}");
    (error.code(), error.to_string())
}

/// The layout with its index changed.
fn with_index(mut layout: Layout, change: impl FnOnce(&mut Value)) -> Layout {
    let mut index = serde_json::from_slice(&layout.files["index.json"]).unwrap();
    change(&mut index);
    layout
        .files
        .insert("index.json".to_owned(), serde_json::to_vec(&index).unwrap());
    layout
}

/// One layout with the images of all of them.
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

#[test]
fn an_image_comes_in_and_is_found_again() {
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
    // Once more is fine.
    assert_eq!(place.import(&layout).unwrap().digest, image.digest);
    assert_eq!((place.blobs(), place.unfinished()), (4, 0));
}

#[test]
fn every_encoding_of_layers_is_taken() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layer = Layer::new(&[Entry::file("f", vec![5; 100_000])], compression).unwrap();
        let layout = ImageSpec::new("x").layer(layer).build().unwrap();
        assert!(Place::new().import(&layout).is_ok(), "{compression:?}");
    }
}

#[test]
fn dockers_media_types_are_taken() {
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
fn files_may_come_in_any_order_and_with_any_prefix() {
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
fn a_compressed_archive_is_taken() {
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
fn a_compressed_upload_that_breaks_is_told_from_a_damaged_one() {
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
fn zstd_may_not_take_memory_at_will() {
    // A frame's header that asks for a window of 2^30 bytes (RFC 8878, 3.1.1.1.2).
    let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0, 0, 0, 0, 0];
    let (code, text) = refused(&Place::new(), &greedy);
    assert_eq!(code, "malformed");
    assert!(text.contains("memory"), "{text}");
}

#[test]
fn blobs_that_no_image_needs_are_left_out() {
    let mut layout = hello();
    layout
        .files
        .insert(blob_path(&sha256(b"spare")), b"spare".to_vec());
    let place = Place::new();
    place.import(&layout).unwrap();
    assert_eq!(place.blobs(), 4);
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let layout = hello();
    let archive = layout.archive().unwrap();
    // Zeros at the end are of no content: the first block of them already says that all is there.
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
fn a_flipped_bit_anywhere_is_noticed() {
    let layout = hello();
    let archive = layout.archive().unwrap();
    let expected = layout.manifest_digest.clone();
    for at in (0..archive.len() - 1024).step_by(61) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x04;
        let place = Place::new();
        // Padding and a file's owner mean nothing: then the image must be the very same.
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
fn a_blob_that_is_not_its_name_is_refused() {
    let mut layout = hello();
    let path = blob_path(&layout.manifest_digest);
    layout.files.get_mut(&path).unwrap()[5] ^= 1;
    let (code, text) = refused(&Place::new(), &layout.archive().unwrap());
    assert_eq!(code, "digest_mismatch");
    assert!(text.contains(&layout.manifest_digest), "{text}");
}

#[test]
fn whatever_is_missing_is_named() {
    let layout = hello();
    for (path, code) in layout.files.keys().map(|path| match path.as_str() {
        "oci-layout" | "index.json" => (path, "malformed"),
        _ => (path, "blob_missing"),
    }) {
        let mut cut = layout.clone();
        cut.files.remove(path);
        let (found, text) = refused(&Place::new(), &cut.archive().unwrap());
        assert_eq!(found, code, "{path}: {text}");
        let name = path.rsplit('/').next().unwrap();
        assert!(text.contains(name), "{path}: {text}");
    }
}

#[test]
fn sizes_must_be_true() {
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    for part in ["/layers/0/size", "/config/size"] {
        let layout = ImageSpec::new("x")
            .layer(layer.clone())
            .edit_manifest(move |manifest| *manifest.pointer_mut(part).unwrap() = 7.into());
        let archive = layout.build().unwrap().archive().unwrap();
        assert_eq!(
            refused(&Place::new(), &archive).0,
            "digest_mismatch",
            "{part}"
        );
    }
    let layout = with_index(hello(), |index| index["manifests"][0]["size"] = 7.into());
    assert_eq!(
        refused(&Place::new(), &layout.archive().unwrap()).0,
        "digest_mismatch"
    );
}

#[test]
fn documents_that_make_no_sense_are_refused() {
    type Edit = fn(&mut Value);
    let manifests: [(&str, Edit); 6] = [
        ("malformed", |manifest| manifest["schemaVersion"] = 1.into()),
        ("malformed", |manifest| manifest["layers"] = json!([])),
        ("malformed", |manifest| {
            manifest["config"]["digest"] = "sha256:xyz".into()
        }),
        ("malformed", |manifest| manifest["layers"] = json!("none")),
        ("unsupported", |manifest| {
            manifest["layers"][0]["mediaType"] = "text/plain".into()
        }),
        ("unsupported", |manifest| {
            manifest["config"]["mediaType"] = "text/plain".into()
        }),
    ];
    let configs: [(&str, Edit); 5] = [
        ("malformed", |config| {
            config["rootfs"]["diff_ids"] = json!([])
        }),
        ("malformed", |config| {
            config["rootfs"]["diff_ids"] = json!(["nonsense"])
        }),
        ("malformed", |config| {
            config["rootfs"]["type"] = "tree".into()
        }),
        ("malformed", |config| *config = json!([])),
        ("wrong_architecture", |config| {
            config["architecture"] = "riscv64".into()
        }),
    ];
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    let spec = || ImageSpec::new("x").layer(layer.clone());
    let manifests = manifests.map(|(code, edit)| (code, spec().edit_manifest(edit)));
    let configs = configs.map(|(code, edit)| (code, spec().edit_config(edit)));
    for (number, (code, spec)) in manifests.into_iter().chain(configs).enumerate() {
        let (found, text) = refused(&Place::new(), &spec.build().unwrap().archive().unwrap());
        assert_eq!(found, code, "case {number}: {text}");
    }
}

#[test]
fn the_layout_itself_is_checked() {
    type Change = fn(&mut Layout);
    let cases: [(&str, Change); 6] = [
        ("unsupported", |layout| {
            layout.files.insert(
                "oci-layout".into(),
                br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec(),
            );
        }),
        ("malformed", |layout| {
            layout.files.insert("oci-layout".into(), b"{".to_vec());
        }),
        ("malformed", |layout| {
            layout.files.insert("index.json".into(), b"{}".to_vec());
        }),
        ("malformed", |layout| {
            layout.files.insert("blobs/sha256/short".into(), Vec::new());
        }),
        ("malformed", |layout| {
            layout.files.insert("../outside".into(), Vec::new());
        }),
        ("too_large", |layout| {
            layout
                .files
                .insert("index.json".into(), vec![b' '; 5 << 20]);
        }),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let mut layout = hello();
        change(&mut layout);
        let (found, text) = refused(&Place::new(), &layout.archive().unwrap());
        assert_eq!(found, code, "case {number}: {text}");
    }
}

#[test]
fn what_is_no_oci_archive_is_told_what_to_do() {
    for bytes in [&b""[..], b"x", b"hello, this is not a tar", &[0; 2048]] {
        assert_eq!(refused(&Place::new(), bytes).0, "malformed");
    }
    let (code, text) = refused(&Place::new(), &archive_of(&[("a", b"b")]).unwrap());
    assert_eq!(code, "malformed");
    assert!(
        text.contains("nor manifest.json") && text.contains("docker save"),
        "{text}"
    );
}

#[test]
fn an_image_for_another_machine_says_which() {
    for with_platform in [true, false] {
        let mut layout = image("riscv64", "a");
        if !with_platform {
            layout = with_index(layout, |index| {
                index["manifests"][0]
                    .as_object_mut()
                    .unwrap()
                    .remove("platform");
            });
        }
        let (code, text) = refused(&Place::new(), &layout.archive().unwrap());
        assert_eq!(code, "wrong_architecture");
        assert!(text.contains("linux/riscv64"), "{text}");
        assert!(text.contains(&platform().to_string()), "{text}");
    }
}

#[test]
fn the_index_is_taken_at_its_configurations_word() {
    let layout = with_index(image("riscv64", "a"), |index| {
        index["manifests"][0]["platform"]["architecture"] = own_architecture().into();
    });
    assert_eq!(
        refused(&Place::new(), &layout.archive().unwrap()).0,
        "wrong_architecture"
    );
}

#[test]
fn of_several_images_the_one_that_fits_is_taken() {
    let own = image(&own_architecture(), "own");
    let all = together(&[image("riscv64", "a"), own.clone(), image("s390x", "b")]);
    let place = Place::new();
    assert_eq!(
        place.import(&all).unwrap().digest.to_string(),
        own.manifest_digest
    );
    assert_eq!(place.blobs(), 3);
}

#[test]
fn several_images_that_fit_are_refused_by_name() {
    let own = own_architecture();
    let both = together(&[image(&own, "first"), image(&own, "second")]);
    let (code, text) = refused(&Place::new(), &both.archive().unwrap());
    assert_eq!(code, "several_images");
    assert!(text.contains("first, second"), "{text}");
    let same = together(&[image(&own, "first"), image(&own, "first")]);
    assert!(
        Place::new().import(&same).is_ok(),
        "one image by two names is one image"
    );
}

#[test]
fn one_of_several_images_is_chosen_by_its_name() {
    let own = own_architecture();
    let images = [
        image(&own, "first"),
        image(&own, "name:1.0"),
        image("s390x", "big"),
    ];
    let all = together(&images).archive().unwrap();
    let named = |name| {
        let place = Place::new();
        let image = place
            .store
            .import_archive_named(&all[..], &platform(), Some(name));
        assert_eq!(place.unfinished(), 0);
        image.map(|image| image.digest.to_string())
    };
    assert_eq!(named("first").unwrap(), images[0].manifest_digest);
    assert_eq!(
        named("docker.io/library/name:1.0").unwrap(),
        images[1].manifest_digest
    );
    assert_eq!(
        named(&images[1].manifest_digest).unwrap(),
        images[1].manifest_digest
    );
    let error = named("third").unwrap_err();
    assert_eq!(error.code(), "no_such_image");
    assert!(
        error.to_string().contains("only big, first, name:1.0"),
        "{error}"
    );
    let error = named("big").unwrap_err();
    assert_eq!(error.code(), "wrong_architecture");
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn what_is_not_chosen_need_not_be_whole() {
    let own = own_architecture();
    let mut both = together(&[image(&own, "first"), image(&own, "second")]);
    let second = image(&own, "second").manifest_digest;
    both.files.remove(&blob_path(&second));
    let archive = both.archive().unwrap();
    let place = Place::new();
    let first = place
        .store
        .import_archive_named(&archive[..], &platform(), Some("first"));
    assert!(first.is_ok());
    assert_eq!(import(&place, &archive).unwrap_err().code(), "blob_missing");
}

#[test]
fn a_layout_that_is_a_directory_is_taken() {
    let layout = together(&[hello(), image("s390x", "big")]);
    let place = Place::new();
    let directory = place.directory.path().join("layout");
    layout.write_directory(&directory).unwrap();
    let import = |name| place.store.import_directory(&directory, &platform(), name);
    assert_eq!(
        import(None).unwrap().digest.to_string(),
        hello().manifest_digest
    );
    assert_eq!(
        (place.blobs(), place.unfinished()),
        (4, 0),
        "only what the image needs"
    );
    assert_eq!(import(Some("nope")).unwrap_err().code(), "no_such_image");
    let other = Place::new();
    let import = || other.store.import_directory(&directory, &platform(), None);
    let blob = directory.join(blob_path(&hello().manifest_digest));
    let manifest = fs::read(&blob).unwrap();
    fs::write(&blob, manifest.to_ascii_uppercase()).unwrap();
    assert_eq!(import().unwrap_err().code(), "digest_mismatch");
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
    assert_eq!(
        import().unwrap_err().code(),
        "malformed",
        "no link is followed"
    );
    fs::remove_file(directory.join("index.json")).unwrap();
    let error = import().unwrap_err();
    assert!(
        error.to_string().contains("has no file index.json"),
        "{error}"
    );
    assert_eq!((other.blobs(), other.unfinished()), (0, 0));
}

#[test]
fn layers_that_only_their_vendor_hands_out_are_refused() {
    for name in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
        let image = ImageSpec::new("x")
            .layer(layer)
            .edit_manifest(move |manifest| manifest["layers"][0]["mediaType"] = name.into());
        let archive = image.build().unwrap().archive().unwrap();
        let (code, text) = refused(&Place::new(), &archive);
        assert_eq!(code, "unsupported");
        assert!(
            text.contains("foreign layer") && text.contains(name),
            "{text}"
        );
    }
}

#[test]
fn indexes_that_multiply_are_stopped() {
    let mut layout = hello();
    // Each refers 200 times to the next, under another name each time.
    let mut below: Value = serde_json::from_slice(&layout.files["index.json"]).unwrap();
    for _ in 0..3 {
        let bytes = serde_json::to_vec(&below).unwrap();
        layout
            .files
            .insert(blob_path(&sha256(&bytes)), bytes.clone());
        let entry = |name: usize| {
            json!({
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": sha256(&bytes),
                "size": bytes.len(),
                "annotations": { "org.opencontainers.image.ref.name": name.to_string() },
            })
        };
        let entries: Vec<Value> = (0..200).map(entry).collect();
        below = json!({ "schemaVersion": 2, "manifests": entries });
    }
    let layout = with_index(layout, |index| *index = below);
    let (code, text) = refused(&Place::new(), &layout.archive().unwrap());
    assert_eq!(code, "too_large");
    assert!(text.contains("entries of the index"), "{text}");
}

#[test]
fn an_index_that_is_named_often_is_read_once() {
    let mut layout = hello();
    let own = layout.files["index.json"].clone();
    layout.files.insert(blob_path(&sha256(&own)), own.clone());
    let entry = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": sha256(&own),
        "size": own.len(),
    });
    let layout = with_index(layout, |index| {
        *index = json!({ "schemaVersion": 2, "manifests": vec![entry; 5000] });
    });
    assert!(import(&Place::new(), &layout.archive().unwrap()).is_ok());
}

#[test]
fn an_index_within_the_index_is_followed() {
    let own = image(&own_architecture(), "own");
    let nest = |mut layout: Layout| {
        let inner = layout.files["index.json"].clone();
        let digest = sha256(&inner);
        let bytes = inner.len();
        layout.files.insert(blob_path(&digest), inner);
        with_index(layout, |index| {
            index["manifests"] = json!([{
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": digest,
                "size": bytes,
            }]);
        })
    };
    let nested = nest(own.clone());
    let place = Place::new();
    assert_eq!(
        place.import(&nested).unwrap().digest.to_string(),
        own.manifest_digest
    );
    let deep = (0..8).fold(own, |layout, _| nest(layout));
    assert_eq!(
        refused(&Place::new(), &deep.archive().unwrap()).0,
        "malformed"
    );
}

#[test]
fn attestations_and_artifacts_are_passed_over() {
    let layout = with_index(image(&own_architecture(), "own"), |index| {
        let mut attestation = index["manifests"][0].clone();
        attestation["digest"] = sha256(b"absent").into();
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        let mut artifact = attestation.clone();
        artifact["mediaType"] = "application/vnd.oci.artifact.manifest.v1+json".into();
        let manifests = index["manifests"].as_array_mut().unwrap();
        manifests.extend([attestation, artifact]);
    });
    assert!(Place::new().import(&layout).is_ok());
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

/// A stream that breaks.
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
fn an_upload_that_breaks_leaves_nothing() {
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

#[test]
fn single_blobs_come_in() {
    let place = Place::new();
    let digest: Digest = sha256(b"blob").parse().unwrap();
    let error = place.store.ingest_blob(&digest, &b"blub"[..]).unwrap_err();
    assert_eq!(
        (error.code(), place.blobs(), place.unfinished()),
        ("digest_mismatch", 0, 0)
    );
    place.store.ingest_blob(&digest, &b"blob"[..]).unwrap();
    place
        .store
        .ingest_blob(&digest, &b"whatever: it is there"[..])
        .unwrap();
    assert_eq!((place.blobs(), place.unfinished()), (1, 0));
    let small = Place::with(Limits {
        archive_bytes: 3,
        ..Limits::default()
    });
    assert_eq!(
        small
            .store
            .ingest_blob(&digest, &b"blob"[..])
            .unwrap_err()
            .code(),
        "too_large"
    );
}

#[test]
fn a_blob_that_the_disk_has_damaged_is_found_and_taken_anew() {
    let place = Place::new();
    let image = place.import(&hello()).unwrap();
    for digest in image.blobs() {
        let path = place
            .directory
            .path()
            .join("store/blobs/sha256")
            .join(digest.digest());
        let whole = fs::read(&path).unwrap();
        assert_eq!(
            place.store.verify_blob(&digest).unwrap(),
            whole.len() as u64
        );
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_eq!(
            place.store.verify_blob(&digest).unwrap_err().code(),
            "digest_mismatch"
        );
        assert_eq!(
            place.store.verify_blob(&digest).unwrap_err().code(),
            "not_found"
        );
        place.store.ingest_blob(&digest, &whole[..]).unwrap();
        assert!(place.store.verify_blob(&digest).is_ok());
    }
    // A whole upload heals too, whatever the damage.
    for digest in image.blobs() {
        let path = place
            .directory
            .path()
            .join("store/blobs/sha256")
            .join(digest.digest());
        fs::write(path, "damaged").unwrap();
    }
    assert_eq!(
        place.store.image(&image.digest).unwrap_err().code(),
        "digest_mismatch"
    );
    place.import(&hello()).unwrap();
    assert!(place.unpack(&image).is_ok());
}

#[test]
fn damage_is_found_by_who_reads_an_image() {
    let place = Place::new();
    let flip = |digest: &Digest| {
        let blobs = place.directory.path().join("store/blobs/sha256");
        let path = blobs.join(digest.digest());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let image = place.import(&hello()).unwrap();
    for digest in image.blobs() {
        assert!(place.store.open_checked(&digest).is_ok());
        flip(&digest);
        // Its time has changed: it is looked at again, and gone.
        let error = place.store.open_checked(&digest).unwrap_err();
        assert_eq!(error.code(), "digest_mismatch");
        assert_eq!(
            place.store.open_checked(&digest).unwrap_err().code(),
            "not_found"
        );
        place.import(&hello()).unwrap();
    }
    let layer = image.manifest.layers()[0].digest();
    for digest in [layer, image.manifest.config().digest(), &image.digest] {
        flip(digest);
        let read = place.store.image(&image.digest);
        let read = read.and_then(|image| place.store.verify(&image));
        assert_eq!(read.unwrap_err().code(), "digest_mismatch");
        assert!(!place.store.contains(digest), "it can be taken anew");
        place.import(&hello()).unwrap();
        place.store.verify(&image).unwrap();
    }
    flip(&image.digest);
    assert!(place.store.resolve(&image.digest, &platform()).is_err());
    assert!(!place.store.contains(&image.digest));
}

#[test]
fn what_no_image_needs_is_collected() {
    let place = Place::new();
    let kept = place.import(&hello()).unwrap();
    let shared = [
        Entry::directory("etc"),
        Entry::file("etc/passwd", "root:x:0:0::/:/\n"),
    ];
    let gone = place
        .import(&image_of(&[&shared, &[Entry::file("other", "x")]]))
        .unwrap();
    assert_eq!(place.blobs(), 7, "they share a layer");
    let absent: Digest = sha256(b"absent").parse().unwrap();
    let expected: u64 = [gone.digest.clone(), gone.manifest.config().digest().clone()]
        .iter()
        .chain([gone.manifest.layers()[1].digest()])
        .map(|blob| place.store.open_blob(blob).unwrap().1)
        .sum();
    assert_eq!(
        place.store.retain(&[kept.digest.clone(), absent]).unwrap(),
        expected
    );
    assert_eq!(place.blobs(), 4);
    assert!(place.store.image(&kept.digest).is_ok());
    assert_eq!(
        place.store.image(&gone.digest).unwrap_err().code(),
        "not_found"
    );
    assert!(place.store.retain(&[]).unwrap() > 0);
    assert_eq!(place.blobs(), 0);
}

#[test]
fn nothing_is_collected_while_a_manifest_is_unclear() {
    let place = Place::new();
    let image = place.import(&hello()).unwrap();
    let path = place
        .directory
        .path()
        .join("store/blobs/sha256")
        .join(image.digest.digest());
    fs::write(path, "{}").unwrap();
    assert_eq!(
        place.store.retain(&[image.digest]).unwrap_err().code(),
        "digest_mismatch"
    );
    assert_eq!(place.blobs(), 4);
}

#[test]
fn imports_at_once_and_collecting_beside_them_are_safe() {
    let place = Place::new();
    let root = place.directory.path().join("store");
    let archive = hello().archive().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A handle of its own, as another program has it.
                let store = Store::open(&root, Limits::default()).unwrap();
                for _ in 0..20 {
                    store.import_archive(&archive[..], &platform()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                place.store.retain(&[]).unwrap();
            }
        });
    });
    let image = place
        .store
        .import_archive(&archive[..], &platform())
        .unwrap();
    for blob in image.blobs() {
        assert!(place.store.contains(&blob));
    }
    assert_eq!((place.blobs(), place.unfinished()), (4, 0));
}

#[test]
fn what_an_earlier_run_left_is_swept() {
    let place = Place::new();
    let root = place.directory.path();
    fs::create_dir(root.join("store/ingest/.tmp-x")).unwrap();
    fs::write(root.join("store/ingest/.tmp-x/blob"), "half").unwrap();
    fs::create_dir(root.join("layers/.tmp-y")).unwrap();
    assert_eq!(place.unfinished(), 2);
    Store::open(&root.join("store"), Limits::default()).unwrap();
    tucano_oci_image::Layers::open(&root.join("layers"), Limits::default()).unwrap();
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn the_host_is_a_platform_in_gos_terms() {
    let host = Platform::host();
    assert_eq!(host.os, "linux");
    assert!(
        !["x86_64", "aarch64"].contains(&host.architecture.as_str()),
        "{host}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let place = Place::new();
        prop_assert!(import(&place, &bytes).is_err());
        prop_assert_eq!((place.blobs(), place.unfinished()), (0, 0));
    }

    #[test]
    fn an_archive_changed_at_random_does_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let layout = hello();
        let mut archive = layout.archive().unwrap();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let place = Place::new();
        match import(&place, &archive) {
            Ok(digest) => prop_assert_eq!(digest.to_string(), layout.manifest_digest),
            Err(_) => prop_assert_eq!((place.blobs(), place.unfinished()), (0, 0)),
        }
    }

    #[test]
    fn a_layer_changed_at_random_unpacks_or_is_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let entries = [
            Entry::directory("d").pax("SCHILY.xattr.user.a", "b"),
            Entry::symlink("d/l", "../../x"),
            Entry::file("d/l/f", "x"),
            Entry::hardlink("h", "d/f"),
            Entry::file("d/.wh.gone", ""),
        ];
        let mut tar = Layer::new(&entries, Compression::None).unwrap().blob;
        for (at, byte) in changes {
            let at = at.index(tar.len());
            tar[at] = byte;
            // With its checksum right again, the change is looked at.
            fix_checksum(&mut tar[at / 512 * 512..][..512]);
        }
        let layer = Layer::from_tar(&tar, Compression::None).unwrap();
        let place = Place::new();
        if let Ok(image) = place.import(&ImageSpec::new("x").layer(layer).build().unwrap()) {
            drop(place.unpack(&image));
        }
        prop_assert_eq!(place.unfinished(), 0);
    }
}

fn fix_checksum(block: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    header.set_cksum();
    block.copy_from_slice(header.as_bytes());
}
