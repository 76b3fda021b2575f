//! The sample images are reproducible and consistent.

use std::{fs, path::Path};

use serde_json::Value;
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, SAMPLES, build_all,
    layout::{blob_path, sha256},
    write_layout,
};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("two levels below the workspace")
}

#[test]
fn two_builds_give_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let archives = build_all(workspace(), first.path()).unwrap();
    let again = build_all(workspace(), second.path()).unwrap();
    assert_eq!(archives.len(), SAMPLES.len());
    for ((archive, again), name) in archives.iter().zip(&again).zip(SAMPLES) {
        assert_eq!(
            archive.file_name().unwrap().to_str(),
            Some(format!("{name}.tar").as_str())
        );
        let (one, other) = (fs::read(archive).unwrap(), fs::read(again).unwrap());
        assert!(
            !one.is_empty() && one == other,
            "{name} differs from build to build"
        );
    }
}

#[test]
fn a_changed_image_replaces_the_old_one_whole() {
    let out = tempfile::tempdir().unwrap();
    let layer = |text: &str| Layer::new(&[Entry::file("x", text)], Compression::Gzip).unwrap();
    let build = |text: &str| {
        let layout = ImageSpec::new("x").layer(layer(text)).build().unwrap();
        write_layout(&layout, out.path(), "x").unwrap();
        layout
    };
    let (old, new) = (build("old"), build("new"));
    assert!(!old.is_at(&out.path().join("x")) && new.is_at(&out.path().join("x")));
    assert_eq!(
        fs::read(out.path().join("x.tar")).unwrap(),
        new.archive().unwrap()
    );
    let blobs = fs::read_dir(out.path().join("x/blobs/sha256"))
        .unwrap()
        .count();
    assert_eq!((blobs, fs::read_dir(out.path()).unwrap().count()), (3, 2));
}

#[test]
fn every_blob_of_a_sample_matches_its_digest() {
    let out = tempfile::tempdir().unwrap();
    build_all(workspace(), out.path()).unwrap();
    for name in SAMPLES {
        let root = out.path().join(name);
        let blobs: Vec<_> = fs::read_dir(root.join("blobs/sha256")).unwrap().collect();
        assert_eq!(
            blobs.len(),
            4,
            "{name}: manifest, configuration and two layers"
        );
        for blob in blobs {
            let path = blob.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(sha256(&fs::read(&path).unwrap()), format!("sha256:{name}"));
        }
    }
}

#[test]
fn a_sample_runs_its_program_as_app() {
    let out = tempfile::tempdir().unwrap();
    build_all(workspace(), out.path()).unwrap();
    let root = out.path().join("slow-start");
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(root.join(path)).unwrap()).unwrap()
    };
    let index = read("index.json");
    let manifest = read(&blob_path(
        index["manifests"][0]["digest"].as_str().unwrap(),
    ));
    let config = read(&blob_path(manifest["config"]["digest"].as_str().unwrap()));
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/slow-start"])
    );
    assert_eq!(config["config"]["User"], "1000:1000");
    assert_eq!(config["os"], "linux");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
}

#[test]
fn programs_contain_no_paths_of_the_machine() {
    let programs = tucano_image_builder::build_programs(workspace()).unwrap();
    let program = fs::read(programs.join("hello")).unwrap();
    let root = workspace().to_str().unwrap().as_bytes();
    assert!(!program.windows(root.len()).any(|window| window == root));
}

#[test]
fn hostile_images_are_written_as_specified() {
    let layer = Layer::new(&[Entry::file("../../etc/x", "boo")], Compression::None).unwrap();
    assert!(layer.blob.starts_with(b"../../etc/x\0"));
    let layout = ImageSpec::new("x")
        .layer(layer)
        .architecture("riscv64")
        .edit_config(|config| config["os"] = "plan9".into())
        .edit_manifest(|manifest| manifest["schemaVersion"] = 7.into())
        .build()
        .unwrap();
    let manifest = &layout.files[&blob_path(&layout.manifest_digest)];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["schemaVersion"], 7);
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config: Value = serde_json::from_slice(&layout.files[&blob_path(config)]).unwrap();
    assert_eq!(
        (&config["os"], &config["architecture"]),
        (&"plan9".into(), &"riscv64".into())
    );
}

#[test]
fn a_long_path_is_kept() {
    let path = format!("{}/file", "d".repeat(120));
    let layer = Layer::new(&[Entry::file(&path, "x")], Compression::None).unwrap();
    let mut tar = tar::Archive::new(&layer.blob[..]);
    let entry = tar.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path_bytes(), path.as_bytes());
}
