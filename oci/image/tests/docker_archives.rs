//! Docker archives in the formats of `docker save`, `podman save`, skopeo and others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Place, platform};
use serde_json::{Value, json};
use tucano_image_builder::{Compression, Entry, Kind, Layer, layout::sha256};
use tucano_oci_image::{Error, Image};

/// An image's parts: its configuration, and its layers from the lowest.
struct Parts {
    config: Vec<u8>,
    layers: Vec<Layer>,
}

fn parts(content: &str, compression: Compression) -> Parts {
    let base = [Entry::directory("etc"), Entry::file("etc/base", "base")];
    let program = [Entry::file("program", content).mode(0o755)];
    let layers = [&base[..], &program].map(|entries| Layer::new(entries, compression).unwrap());
    let config = json!({
        "architecture": platform().architecture,
        "os": "linux",
        "config": { "Cmd": ["/program"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|it| &it.diff_id).collect::<Vec<_>>() },
    });
    Parts {
        config: serde_json::to_vec(&config).unwrap(),
        layers: layers.into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    sha256(bytes).replace("sha256:", "")
}

/// A tar of these entries.
fn tar(entries: &[Entry]) -> Vec<u8> {
    Layer::new(entries, Compression::None).unwrap().blob
}

fn file(path: &str, content: impl Into<Vec<u8>>) -> Entry {
    Entry::file(path, content)
}

fn manifest(images: Value) -> Entry {
    file("manifest.json", serde_json::to_vec(&images).unwrap())
}

fn import(place: &Place, archive: &[u8], name: Option<&str>) -> Result<Image, Error> {
    place.store.import_archive_named(archive, &platform(), name)
}

/// Checks that the archive is imported, and that its second layer has this program.
fn check(archive: &[u8], name: Option<&str>, content: &str) -> Image {
    let place = Place::new();
    let image = import(&place, archive, name).unwrap();
    assert_eq!(place.blobs(), image.layers().len() + 2);
    let again = place.store.image(&image.digest).unwrap();
    assert_eq!(again.config, image.config);
    let layers = place.unpack(&image).unwrap();
    let program = std::fs::read_to_string(layers.last().unwrap().join("program")).unwrap();
    assert_eq!(program, content);
    assert_eq!(place.unfinished(), 0);
    image
}

fn refused(archive: &[u8], name: Option<&str>) -> (&'static str, String) {
    let place = Place::new();
    let error = import(&place, archive, name).unwrap_err();
    assert_eq!((place.blobs(), place.unfinished()), (0, 0), "{error}");
    (error.code(), error.to_string())
}

/// As Docker up to version 24 saved: a directory for each layer, its tar, and files from before manifest.json.
fn old_form(parts: &Parts) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (id, layer) in [("aaaa", &parts.layers[0]), ("bbbb", &parts.layers[1])] {
        entries.extend([
            Entry::directory(&format!("{id}/")),
            file(&format!("{id}/VERSION"), "1.0"),
            file(&format!("{id}/json"), "{}"),
            file(&format!("{id}/layer.tar"), layer.blob.clone()),
        ]);
    }
    let config = format!("{}.json", hex(&parts.config));
    entries.push(file(&config, parts.config.clone()));
    entries.push(manifest(json!([{
        "Config": config,
        "RepoTags": ["app:1.0"],
        "Layers": ["aaaa/layer.tar", "bbbb/layer.tar"],
    }])));
    entries.push(file("repositories", "{}"));
    entries
}

#[test]
fn the_old_format_of_docker_save() {
    let parts = parts("old", Compression::None);
    let image = check(&tar(&old_form(&parts)), None, "old");
    assert_eq!(
        image.manifest.config().digest().to_string(),
        sha256(&parts.config)
    );
    let media_type = image.layers()[0].0.media_type().to_string();
    assert_eq!(
        media_type, "application/vnd.oci.image.layer.v1.tar",
        "stored as it came"
    );
    let reversed: Vec<Entry> = old_form(&parts).into_iter().rev().collect();
    assert_eq!(
        check(&tar(&reversed), None, "old").digest,
        image.digest,
        "in any order"
    );
    for compression in [Compression::Gzip, Compression::Zstd] {
        let archive = compression.compress(&tar(&old_form(&parts))).unwrap();
        assert_eq!(check(&archive, Some("app:1.0"), "old").digest, image.digest);
    }
}

#[test]
fn a_repeated_layer_is_a_link() {
    let mut parts = parts("linked", Compression::None);
    parts.layers.insert(0, parts.layers[0].clone());
    let mut config: Value = serde_json::from_slice(&parts.config).unwrap();
    config["rootfs"]["diff_ids"] = parts.layers.iter().map(|it| it.diff_id.clone()).collect();
    let links = [
        Entry::symlink("cccc/layer.tar", "../aaaa/layer.tar"),
        Entry::new("cccc/layer.tar", Kind::Hardlink(b"aaaa/layer.tar".to_vec())),
    ];
    for link in links {
        let archive = tar(&[
            link,
            file("aaaa/layer.tar", parts.layers[1].blob.clone()),
            file("bbbb/layer.tar", parts.layers[2].blob.clone()),
            file("config.json", serde_json::to_vec(&config).unwrap()),
            manifest(json!([{
                "Config": "config.json",
                "RepoTags": null,
                "Layers": ["aaaa/layer.tar", "cccc/layer.tar", "bbbb/layer.tar"],
            }])),
        ]);
        let place = Place::new();
        let image = import(&place, &archive, None).unwrap();
        assert_eq!((image.layers().len(), place.blobs()), (3, 4));
    }
}

#[test]
fn layers_may_be_compressed_and_have_any_path() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let parts = parts("crane", compression);
        let names: Vec<String> = parts
            .layers
            .iter()
            .map(|it| format!("{}.tar.gz", hex(&it.blob)))
            .collect();
        let config = sha256(&parts.config);
        let archive = tar(&[
            file(&config, parts.config.clone()),
            file(&names[0], parts.layers[0].blob.clone()),
            file(&names[1], parts.layers[1].blob.clone()),
            manifest(json!([{ "Config": config, "RepoTags": [], "Layers": names }])),
        ]);
        let image = check(&archive, None, "crane");
        let media_type = image.layers()[0].0.media_type().to_string();
        assert_eq!(media_type, compression.media_type());
    }
}

#[test]
fn the_new_format_is_also_an_oci_layout() {
    let layout = common::hello();
    let mut entries: Vec<Entry> = layout
        .files
        .iter()
        .map(|(path, content)| file(path, content.clone()))
        .collect();
    entries.push(manifest(
        json!([{ "Config": "blobs/sha256/0", "RepoTags": [], "Layers": [] }]),
    ));
    let place = Place::new();
    let image = import(&place, &tar(&entries), None).unwrap();
    assert_eq!(image.digest.to_string(), layout.manifest_digest);
    // Without its index, Docker's own manifest is used.
    let blobs = entries.iter().filter(|it| it.path.starts_with(b"blobs/"));
    let path = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let listed = manifest(json!([{
        "Config": path(image.manifest.config().digest().as_ref()),
        "Layers": image.layers().iter().map(|(layer, _)| path(layer.digest().as_ref())).collect::<Vec<_>>(),
    }]));
    let image = import(
        &Place::new(),
        &tar(&blobs.cloned().chain([listed]).collect::<Vec<_>>()),
        None,
    );
    assert_eq!(image.unwrap().layers().len(), 2);
}

#[test]
fn one_of_several_images_is_selected() {
    let (first, second) = (
        parts("first", Compression::None),
        parts("second", Compression::None),
    );
    let layer = |parts: &Parts, at: usize| format!("{}.tar", hex(&parts.layers[at].blob));
    let config = |parts: &Parts| format!("{}.json", hex(&parts.config));
    let listed = |parts: &Parts, tags: Value| json!({ "Config": config(parts), "RepoTags": tags, "Layers": [layer(parts, 0), layer(parts, 1)] });
    let archive = tar(&[
        file(&layer(&first, 0), first.layers[0].blob.clone()),
        file(&layer(&first, 1), first.layers[1].blob.clone()),
        file(&layer(&second, 1), second.layers[1].blob.clone()),
        file(&config(&first), first.config.clone()),
        file(&config(&second), second.config.clone()),
        manifest(json!([
            listed(&first, json!(["localhost/first:latest", "other:2"])),
            listed(&second, json!(null))
        ])),
    ]);
    for name in ["first", "localhost/first:latest", "other:2"] {
        check(&archive, Some(name), "first");
    }
    check(&archive, Some(&sha256(&second.config)), "second");
    let (code, text) = refused(&archive, None);
    assert_eq!(code, "several_images");
    assert!(
        text.contains("localhost/first:latest") && text.contains(&sha256(&second.config)),
        "{text}"
    );
    let (code, text) = refused(&archive, Some("third"));
    assert_eq!(code, "no_such_image");
    assert!(
        text.contains("\"third\"") && text.contains("localhost/first:latest"),
        "{text}"
    );
}

#[test]
fn malformed_manifests_are_refused() {
    let parts = parts("bad", Compression::None);
    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = old_form(&parts);
        change(&mut entries);
        refused(&tar(&entries), None)
    };
    let without = |path: &str| with(&|entries| entries.retain(|it| it.path != path.as_bytes()));
    let (code, text) = without("aaaa/layer.tar");
    assert_eq!(code, "malformed");
    assert!(text.contains("aaaa/layer.tar"), "{text}");
    let listing = |listing: &str| {
        with(&|entries| {
            entries.retain(|it| it.path != b"manifest.json");
            entries.push(file("manifest.json", listing));
        })
    };
    for (text, part) in [
        ("[]", "no container image"),
        ("{}", "malformed"),
        (
            r#"[{"Config":"x","Layers":[],"Layers":[]}]"#,
            "duplicate field",
        ),
        (
            r#"[{"Config":"../../etc/passwd","Layers":[]}]"#,
            "no path within",
        ),
        (
            r#"[{"Config":"aaaa/layer.tar","Layers":["aaaa/layer.tar"]}]"#,
            "configuration",
        ),
    ] {
        let (code, told) = listing(text);
        assert_eq!(code, "malformed", "{text}");
        assert!(told.contains(part), "{text}: {told}");
    }
    let (code, text) =
        with(&|entries| entries.insert(0, Entry::symlink("cccc/layer.tar", "/etc/shadow")));
    assert_eq!(code, "malformed");
    assert!(text.contains("leads out"), "{text}");
    // Layers in another order do not match the configuration's diff-ids.
    let (code, _) = with(&|entries| {
        for entry in entries {
            if let Kind::File(content) = &mut entry.kind
                && entry.path == b"manifest.json"
            {
                let text = String::from_utf8(content.clone()).unwrap();
                let swapped = text
                    .replace("aaaa", "x")
                    .replace("bbbb", "aaaa")
                    .replace("\"x/", "\"bbbb/");
                *content = swapped.into_bytes();
            }
        }
    });
    assert_eq!(code, "digest_mismatch");
}
