//! Attacks by hostile layers fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Place, image_of};
use tucano_image_builder::{Compression, Entry, ImageSpec, Kind, Layer, Layout};
use tucano_oci_image::{Digest, Limits};
use tucano_testkit::{ROOT, needs};

/// Imports and unpacks; returns the error's code and text, and checks that no trace remains.
fn refused(place: &Place, layout: &Layout) -> (&'static str, String) {
    let blobs = place.blobs();
    let error = match place.import(layout) {
        Ok(image) => place.unpack(&image).expect_err("it is hostile"),
        Err(error) => {
            assert_eq!(place.blobs(), blobs, "blobs remain");
            error
        }
    };
    assert_eq!(place.unfinished(), 0, "{error}");
    (error.code(), error.to_string())
}

#[test]
fn paths_out_of_the_layer_are_refused_at_import() {
    for path in [
        "../../etc/x",
        "a/../../x",
        "/../x",
        "..",
        "a/../..",
        "../.wh.x",
        ".wh...",
        ".wh..",
    ] {
        let place = Place::new();
        let (code, text) = refused(&place, &image_of(&[&[Entry::file(path, "boo")]]));
        assert_eq!(code, "layer_path_escapes", "{path}: {text}");
        assert!(text.contains(&format!("{path:?}")), "{text}");
        assert_eq!(place.blobs(), 0);
    }
    let link = [Entry::hardlink("x", "../../../etc/passwd")];
    assert_eq!(
        refused(&Place::new(), &image_of(&[&link])).0,
        "layer_path_escapes"
    );
    let pax = [Entry::file("x", "").pax("path", "../../etc/x")];
    assert_eq!(
        refused(&Place::new(), &image_of(&[&pax])).0,
        "layer_path_escapes"
    );
}

#[test]
fn links_out_of_the_layer_are_not_followed() {
    if !needs(&[ROOT]) {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let table: [(&str, Vec<Entry>); 8] = [
        (
            "file beneath a link",
            vec![Entry::symlink("l", target), Entry::file("l/x", "boo")],
        ),
        (
            "directory beneath",
            vec![Entry::symlink("l", target), Entry::directory("l/x")],
        ),
        (
            "whiteout beneath",
            vec![Entry::symlink("l", target), Entry::file("l/.wh.secret", "")],
        ),
        (
            "opaque beneath",
            vec![
                Entry::symlink("l", target),
                Entry::file("l/.wh..wh..opq", ""),
            ],
        ),
        (
            "hard link through",
            vec![
                Entry::symlink("l", target),
                Entry::hardlink("x", "l/secret"),
            ],
        ),
        (
            "link to a link",
            vec![
                Entry::symlink("a", target),
                Entry::symlink("b", "a"),
                Entry::file("b/x", "boo"),
            ],
        ),
        (
            "link upwards",
            vec![
                Entry::symlink("l", &format!("../../../../../../../..{target}")),
                Entry::file("l/secret", "boo"),
            ],
        ),
        (
            "loop",
            vec![
                Entry::symlink("a", "b"),
                Entry::symlink("b", "a"),
                Entry::file("a/x", "boo"),
            ],
        ),
    ];
    for (what, entries) in table {
        let (code, text) = refused(&Place::new(), &image_of(&[&entries]));
        assert_eq!(code, "malformed", "{what}: {text}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    if !needs(&[ROOT]) {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let place = Place::new();
    let entries = [
        Entry::symlink("l", secret.to_str().unwrap()),
        Entry::file("l", "boo").mode(0o777).owner(1, 1),
        Entry::symlink("m", outside.path().to_str().unwrap()),
        Entry::directory("m").mode(0o777),
        Entry::file("m/secret", "boo"),
    ];
    let image = place.import(&image_of(&[&entries])).unwrap();
    let root = &place.unpack(&image).unwrap()[0];
    assert_eq!(fs::read_to_string(root.join("l")).unwrap(), "boo");
    assert_eq!(fs::read_to_string(root.join("m/secret")).unwrap(), "boo");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn entries_that_cannot_be_created_are_refused() {
    if !needs(&[ROOT]) {
        return;
    }
    let table: [(&str, Vec<Entry>); 5] = [
        (
            "hard link to nothing",
            vec![Entry::hardlink("x", "missing")],
        ),
        (
            "hard link to a directory of nothing",
            vec![Entry::hardlink("x", "no/thing")],
        ),
        (
            "beneath a file",
            vec![Entry::file("f", ""), Entry::file("f/x", "")],
        ),
        (
            "a link in place of the root",
            vec![Entry::symlink("./", "x")],
        ),
        (
            "link to nothing as parent",
            vec![Entry::symlink("l", "no"), Entry::file("l/x", "")],
        ),
    ];
    for (what, entries) in table {
        let (code, text) = refused(&Place::new(), &image_of(&[&entries]));
        assert_eq!(code, "malformed", "{what}: {text}");
    }
}

#[test]
fn attributes_are_limited() {
    if !needs(&[ROOT]) {
        return;
    }
    for bytes in [20_000, 65_000, 70_000] {
        let entry = Entry::file("f", "").pax("SCHILY.xattr.user.big", vec![b'x'; bytes]);
        let place = Place::new();
        // File systems differ, but none accepts more than the kernel's limit.
        let imported = place.import(&image_of(&[&[entry]]));
        match imported.and_then(|image| place.unpack(&image)) {
            Ok(_) => assert!(bytes <= 65_536),
            Err(error) => assert_eq!(error.code(), "malformed", "{bytes}: {error}"),
        }
        assert_eq!(place.unfinished(), 0);
    }
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    let entry = Entry::file("f", "").pax(&long, "x");
    let (code, text) = refused(&Place::new(), &image_of(&[&[entry]]));
    assert_eq!(code, "malformed", "{text}");
}

#[test]
fn names_that_the_kernel_refuses_are_refused_at_import() {
    let long = "x".repeat(300);
    let deep = "x/".repeat(300);
    for path in [long.as_str(), deep.as_str(), "./", ".wh."] {
        let entry = Entry::symlink(path, "target");
        let (code, text) = refused(&Place::new(), &image_of(&[&[entry]]));
        assert_eq!(code, "malformed", "{path}: {text}");
    }
    for target in [String::new(), "x".repeat(5000)] {
        let entry = Entry::symlink("l", &target);
        assert_eq!(
            refused(&Place::new(), &image_of(&[&[entry]])).0,
            "malformed"
        );
    }
}

#[test]
fn depth_is_limited_through_links_too() {
    if !needs(&[ROOT]) {
        return;
    }
    // Each link leads to the end of the previous one, which increases the depth.
    let mut entries = Vec::new();
    let below = vec!["d"; 200].join("/");
    let mut start = String::new();
    for step in 0..20 {
        let end = format!("{start}{below}");
        entries.push(Entry::directory(&end));
        entries.push(Entry::symlink(&format!("l{step}"), &end));
        start = format!("l{step}/");
    }
    let place = Place::new();
    let (code, text) = refused(&place, &image_of(&[&entries]));
    assert_eq!(code, "malformed", "{text}");
}

#[test]
fn the_deepest_accepted_layer_can_be_removed() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::new();
    let deep = vec!["d"; 256].join("/");
    let image = place
        .import(&image_of(&[&[Entry::directory(&deep)]]))
        .unwrap();
    let root = place.unpack(&image).unwrap().remove(0);
    assert!(root.join(&deep).is_dir());
    place.layers.retain(&[]).unwrap();
    assert!(!root.exists());
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn decompression_bombs_are_stopped() {
    let limits = Limits {
        layer_bytes: 1 << 20,
        layer_entries: 10,
        layers: 2,
        ..Limits::default()
    };
    let place = Place::with(limits.clone());
    let zeros = [Entry::file("zeros", vec![0; 2 << 20])];
    let (code, text) = refused(&place, &image_of(&[&zeros]));
    assert_eq!(code, "too_large", "{text}");
    assert!(text.contains("1048576 bytes"), "{text}");
    let many: Vec<Entry> = (0..11)
        .map(|number| Entry::file(&number.to_string(), ""))
        .collect();
    assert_eq!(refused(&place, &image_of(&[&many])).0, "too_large");
    assert!(place.import(&image_of(&[&many[..10]])).is_ok());
    let layer: &[Entry] = &[Entry::file("f", "")];
    assert_eq!(
        refused(&place, &image_of(&[layer, layer, layer])).0,
        "too_large"
    );
    // Extension headers count too.
    let extended = Entry::file("f", "").pax("comment", vec![b'x'; 2 << 20]);
    assert_eq!(
        refused(&Place::new(), &image_of(&[&[extended]])).0,
        "malformed"
    );
    let claims = Entry::file("f", "").pax("size", (u64::MAX - 3).to_string());
    assert_eq!(
        refused(&Place::new(), &image_of(&[&[claims]])).0,
        "too_large"
    );
}

#[test]
fn lower_limits_of_the_unpacker_apply() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::new();
    let image = place
        .import(&image_of(&[&[Entry::file("f", vec![0; 9000])]]))
        .unwrap();
    let limits = Limits {
        layer_bytes: 8000,
        ..Limits::default()
    };
    let strict = tucano_oci_image::Layers::open(&place.directory.path().join("strict"), limits);
    let (layer, diff_id) = &image.layers()[0];
    let error = strict
        .unwrap()
        .unpack(&place.store, layer, diff_id)
        .unwrap_err();
    assert_eq!(error.code(), "too_large");
}

#[test]
fn unknown_entry_types_are_refused() {
    let mut tar = Layer::new(&[Entry::file("f", "")], Compression::None)
        .unwrap()
        .blob;
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&tar[..512]);
    header.set_entry_type(tar::EntryType::new(b'Z'));
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    let layer = Layer::from_tar(&tar, Compression::Gzip).unwrap();
    let (code, text) = refused(
        &Place::new(),
        &ImageSpec::new("x").layer(layer).build().unwrap(),
    );
    assert_eq!(code, "malformed");
    assert!(text.contains("'Z'"), "{text}");
}

#[test]
fn a_layer_with_another_digest_is_refused() {
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    let wrong = Layer {
        diff_id: format!("sha256:{}", "0".repeat(64)),
        ..layer.clone()
    };
    let (code, text) = refused(
        &Place::new(),
        &ImageSpec::new("x").layer(wrong).build().unwrap(),
    );
    assert_eq!(code, "digest_mismatch", "{text}");
    let garbage = Layer {
        blob: b"not gzip".to_vec(),
        ..layer.clone()
    };
    let (code, text) = refused(
        &Place::new(),
        &ImageSpec::new("x").layer(garbage).build().unwrap(),
    );
    assert_eq!(code, "malformed", "{text}");
    let not_tar = Layer::from_tar(&[1; 2000], Compression::Gzip).unwrap();
    let layout = ImageSpec::new("x").layer(not_tar).build().unwrap();
    assert_eq!(refused(&Place::new(), &layout).0, "malformed");
    let mut cut = layer.clone();
    cut.blob.truncate(cut.blob.len() - 9);
    let (code, text) = refused(
        &Place::new(),
        &ImageSpec::new("x").layer(cut).build().unwrap(),
    );
    assert_eq!(code, "malformed", "{text}");
}

#[test]
fn unpacking_detects_damage_on_the_disk() {
    let place = Place::new();
    let noise: Vec<u8> = (0..40_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let image = place
        .import(&image_of(&[&[Entry::file("f", noise)]]))
        .unwrap();
    let (layer, diff_id) = &image.layers()[0];
    let blob = place
        .directory
        .path()
        .join("store/blobs/sha256")
        .join(layer.digest().digest());
    let whole = fs::read(&blob).unwrap();
    for at in [0, 11, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&blob, &damaged).unwrap();
        let error = place
            .layers
            .unpack(&place.store, layer, diff_id)
            .unwrap_err();
        assert_eq!(error.code(), "digest_mismatch", "byte {at}: {error}");
        assert_eq!(place.unfinished(), 0);
        assert_eq!(place.layers.get(diff_id), None);
    }
    fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
    let error = place
        .layers
        .unpack(&place.store, layer, diff_id)
        .unwrap_err();
    assert_eq!(error.code(), "digest_mismatch", "{error}");
}

#[test]
fn a_missing_layer_is_not_found() {
    let place = Place::new();
    let other = Place::new();
    let image = other.import(&image_of(&[&[Entry::file("f", "")]])).unwrap();
    let (layer, diff_id) = &image.layers()[0];
    let error = place
        .layers
        .unpack(&place.store, layer, diff_id)
        .unwrap_err();
    assert_eq!(error.code(), "not_found");
    let nothing: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
    assert_eq!(place.store.image(&nothing).unwrap_err().code(), "not_found");
    assert_eq!(
        place.store.open_blob(&nothing).unwrap_err().code(),
        "not_found"
    );
}

#[test]
fn device_nodes_do_not_open_the_device() {
    if !needs(&[ROOT]) {
        return;
    }
    // They are created, as by other tools; the runtime prevents containers from opening them.
    let device = |major, minor| Entry::new("disk", Kind::BlockDevice { major, minor });
    let place = Place::new();
    let image = place.import(&image_of(&[&[device(0xfff, 0)]])).unwrap();
    assert!(place.unpack(&image).unwrap()[0].join("disk").exists());
    let (code, text) = refused(&place, &image_of(&[&[device(0x1000, 0)]]));
    assert_eq!(code, "malformed", "{text}");
    assert!(text.contains("device major is out of range"), "{text}");
    let (code, text) = refused(&place, &image_of(&[&[device(8, 0x10_0000)]]));
    assert_eq!(code, "malformed", "{text}");
}
