//! Sparse files in each of GNU tar's formats, and malformed ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
};

use common::{Place, image_of};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_oci_image::{Error, Limits};
use tucano_testkit::{ROOT, needs, tool};

/// GNU tar's options for each format.
const FORMS: [&[&str]; 4] = [
    &["--format=gnu"],
    &["--format=posix", "--sparse-version=0.0"],
    &["--format=posix", "--sparse-version=0.1"],
    &["--format=posix", "--sparse-version=1.0"],
];

/// A file with data at each of these offsets, and a final hole if it is longer.
fn file_with_holes(path: &Path, places: &[u64], bytes: u64) {
    let file = File::create(path).unwrap();
    for place in places {
        let data: Vec<u8> = (0..5000).map(|at| (at + place) as u8 | 1).collect();
        file.write_all_at(&data, *place).unwrap();
    }
    file.set_len(bytes).unwrap();
}

#[test]
fn in_every_sparse_format_of_gnu_tar() {
    if !needs(&[ROOT, tool("tar")]) {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let many: Vec<u64> = (0..60).map(|number| number * 100_000).collect();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    fs::create_dir(source.path().join("d".repeat(120))).unwrap();
    for (name, places, bytes) in [
        ("few", &[8192, 1 << 20][..], (1 << 20) + 5000),
        ("many", &many, 10 << 20),
        ("only-a-hole", &[], 3 << 20),
        (&long, &[1 << 20], 2 << 20),
    ] {
        file_with_holes(&source.path().join(name), places, bytes);
    }
    fs::write(source.path().join("plain"), "plain").unwrap();
    let names = ["few", "many", "only-a-hole", long.as_str(), "plain"];
    for form in FORMS {
        let tar = Command::new("tar")
            .args(form)
            .args(["--sparse", "-c", "-C"])
            .arg(source.path())
            .args(names)
            .output()
            .unwrap();
        assert!(tar.status.success() && tar.stdout.len() < 1 << 20);
        let layer = Layer::from_tar(&tar.stdout, Compression::Gzip).unwrap();
        let place = Place::new();
        let image = place
            .import(&ImageSpec::new("holes").layer(layer).build().unwrap())
            .unwrap();
        let root = &place.unpack(&image).unwrap()[0];
        for name in names {
            let same =
                fs::read(root.join(name)).unwrap() == fs::read(source.path().join(name)).unwrap();
            assert!(same, "{form:?}: {name}");
        }
        let holes = fs::metadata(root.join("many")).unwrap();
        assert!(
            holes.blocks() * 512 < 2 << 20,
            "{form:?}: its holes take space"
        );
        assert_eq!(fs::read_dir(root).unwrap().count(), names.len());
    }
}

fn import(entry: Entry) -> Result<(), Error> {
    Place::new().import(&image_of(&[&[entry]])).map(drop)
}

#[test]
fn inconsistent_extent_lists_are_refused() {
    let oldest = |records: &[(&str, &str)]| {
        let mut entry = Entry::file("f", vec![1; 20]);
        for (key, value) in records {
            entry = entry.pax(&format!("GNU.sparse.{key}"), *value);
        }
        entry
    };
    for (what, records) in [
        ("no size", &[("map", "0,20")][..]),
        ("an odd number", &[("size", "99"), ("map", "0,20,9")]),
        ("no number", &[("size", "99"), ("map", "0,x")]),
        ("backwards", &[("size", "99"), ("map", "50,10,0,10")]),
        ("over each other", &[("size", "99"), ("map", "0,10,5,10")]),
        ("beyond the end", &[("size", "99"), ("map", "80,20")]),
        (
            "overflowing",
            &[("size", "99"), ("map", "18446744073709551615,20")],
        ),
        ("less than the data", &[("size", "99"), ("map", "0,19")]),
        ("more than the data", &[("size", "99"), ("map", "0,21")]),
        ("an unknown version", &[("size", "99"), ("major", "2")]),
    ] {
        let error = import(oldest(records)).unwrap_err();
        assert_eq!(error.code(), "malformed", "{what}: {error}");
    }
    assert!(import(oldest(&[("size", "99"), ("map", "0,20")])).is_ok());
    // The newest format has the list in the data: here it is missing, too long, or unterminated.
    let endless = "1\n".repeat(1 << 20);
    let hostile = [
        "x\n",
        "99999999999999999999\n",
        "9\n1\n",
        "18446744073709551615\n0\n",
        &endless,
    ];
    for (number, data) in hostile.into_iter().enumerate() {
        let newest = Entry::file("f", data)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.realsize", "9");
        let code = import(newest).unwrap_err().code();
        assert_eq!(code, "malformed", "form {number}");
    }
}

#[test]
fn holes_count_as_bytes() {
    let entry = |name: &str| {
        Entry::file(name, "")
            .pax("GNU.sparse.size", (600 << 10).to_string())
            .pax("GNU.sparse.map", "614400,0")
    };
    let limits = Limits {
        layer_bytes: 1 << 20,
        ..Limits::default()
    };
    let place = Place::with(limits);
    assert!(place.import(&image_of(&[&[entry("a")]])).is_ok());
    let error = place
        .import(&image_of(&[&[entry("a"), entry("b")]]))
        .unwrap_err();
    assert_eq!(error.code(), "too_large", "{error}");
}

#[test]
fn an_archive_with_sparse_members_is_refused() {
    if !needs(&[tool("tar")]) {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    file_with_holes(&source.path().join("index.json"), &[1 << 20], 2 << 20);
    let tar = Command::new("tar")
        .args(["--sparse", "-c", "-C"])
        .arg(source.path())
        .arg("index.json")
        .output()
        .unwrap();
    let place = Place::new();
    let error = place
        .store
        .import_archive(&tar.stdout[..], &common::platform())
        .unwrap_err();
    assert!(error.to_string().contains("holes"), "{error}");
}
