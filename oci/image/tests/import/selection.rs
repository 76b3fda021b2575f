//! Which image of several is selected.

use serde_json::{Value, json};
use tucano_image_builder::{
    Layout,
    layout::{blob_path, sha256},
};
use tucano_oci_image::Platform;

use crate::common::{Place, hello, platform};
use crate::{image, import, own_architecture, refused, together, with_index};

#[test]
fn an_image_for_another_platform_is_refused_by_name() {
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
fn the_configurations_platform_overrides_the_index() {
    let layout = with_index(image("riscv64", "a"), |index| {
        index["manifests"][0]["platform"]["architecture"] = own_architecture().into();
    });
    assert_eq!(
        refused(&Place::new(), &layout.archive().unwrap()).0,
        "wrong_architecture"
    );
}

#[test]
fn the_image_for_this_platform_is_selected() {
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
fn several_matching_images_are_refused_by_name() {
    let own = own_architecture();
    let both = together(&[image(&own, "first"), image(&own, "second")]);
    let (code, text) = refused(&Place::new(), &both.archive().unwrap());
    assert_eq!(code, "several_images");
    assert!(text.contains("first, second"), "{text}");
    let same = together(&[image(&own, "first"), image(&own, "first")]);
    assert!(
        Place::new().import(&same).is_ok(),
        "two names of one image are one image"
    );
}

#[test]
fn one_of_several_images_is_selected_by_name() {
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
fn images_that_are_not_selected_may_be_incomplete() {
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
fn the_number_of_index_entries_is_limited() {
    let mut layout = hello();
    // Each index refers 200 times to the next one, with different names.
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
fn a_repeated_index_is_read_once() {
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
fn a_nested_index_is_followed() {
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
fn attestations_and_artifacts_are_ignored() {
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
fn the_host_platform_uses_go_names() {
    let host = Platform::host();
    assert_eq!(host.os, "linux");
    assert!(
        !["x86_64", "aarch64"].contains(&host.architecture.as_str()),
        "{host}"
    );
}
