//! The memory of unpacking is limited, and each limit names itself. This test runs itself again to measure a process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path, process::Command};

use common::Place;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_oci_image::{Form, Helper, Layers, Limits, Store};
use tucano_testkit::{ROOT, needs};

/// The variable with the directory for the inner run.
const INNER: &str = "TUCANO_TEST_MEMORY";
/// Much less than the attributes of the layer together.
const PEAK_BYTES: u64 = 180 << 20;

/// 5,000 entries with an attribute of 60 kB: 300 MB from a small blob.
fn attributes() -> Vec<u8> {
    let value = vec![b'x'; 60_000];
    let entries: Vec<Entry> = (0..5_000)
        .map(|at| Entry::file(&at.to_string(), "").pax("SCHILY.xattr.user.a", value.clone()))
        .collect();
    let layer = Layer::new(&entries, Compression::Zstd).unwrap();
    let image = ImageSpec::new("x").layer(layer).build().unwrap();
    image.archive().unwrap()
}

fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

fn inner(directory: &Path) {
    let archive = fs::read(directory.join("image.tar")).unwrap();
    let store = Store::open(&directory.join("store"), Limits::default()).unwrap();
    let error = store
        .import_archive(&archive[..], &common::platform())
        .unwrap_err();
    assert_eq!(error.code(), "too_large", "{error}");
    assert!(error.to_string().contains("extended attributes"), "{error}");
    let peak = peak_bytes();
    assert!(peak < PEAK_BYTES, "{} MiB", peak >> 20);
}

#[test]
fn the_attributes_of_a_layer_are_limited_together() {
    if let Some(directory) = std::env::var_os(INNER) {
        return inner(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("image.tar"), attributes()).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_attributes_of_a_layer_are_limited_together"])
        .env(INNER, directory.path())
        .status()
        .unwrap();
    assert!(status.success(), "the measured run failed");
}

#[test]
fn a_tree_over_its_limit_becomes_directories() {
    if !needs(&[ROOT]) {
        return;
    }
    let limits = Limits {
        layer_tree_bytes: 100_000,
        ..Limits::default()
    };
    let entries: Vec<Entry> = (0..1000)
        .map(|at| Entry::file(&format!("{at}-{}", "n".repeat(150)), ""))
        .collect();
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    let place = Place::with(limits.clone());
    let image = place
        .import(&ImageSpec::new("x").layer(layer).build().unwrap())
        .unwrap();
    let root = place.directory.path().join("erofs");
    let layers = Layers::open_in_form(&root, limits, Form::Erofs).unwrap();
    let unpacked = layers.unpack_all(&place.store, &image.layers()).unwrap();
    assert_eq!(fs::read_dir(&unpacked[0]).unwrap().count(), 1000);
    let (layer, diff_id) = &image.layers()[0];
    let blob = place.store.open_blob(layer.digest()).unwrap().0;
    layers.retain(&[]).unwrap();
    let error = layers
        .unpack_stream(&mut { blob }, layer, diff_id)
        .unwrap_err();
    assert!(error.to_string().contains("layer_tree_bytes"), "{error}");
}

#[test]
fn a_process_that_dies_is_started_a_few_times_only() {
    let directory = tempfile::tempdir().unwrap();
    let script_path = directory.path().join("helper");
    let count = directory.path().join("count");
    // Succeeds in the test with an empty layer, and dies of every other one.
    let empty = tucano_oci_image::digest_of(b"");
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in *'\"size\":0,'*|*'\"size\":0}}'*) \
         printf '{{\"Made\":{{\"seal\":\"directory 1 0\",\"diff_id\":\"{empty}\"}}}}'; exit;; esac\n\
         echo x >> {}\nkill -SEGV $$\n",
        count.display()
    );
    fs::write(&script_path, script).unwrap();
    let place = Place::new();
    let helper = Helper {
        program: "/bin/sh".into(),
        arguments: vec![script_path.into()],
    };
    place.layers.use_helper(helper).unwrap();
    let image = place.import(&common::hello()).unwrap();
    let (layer, diff_id) = &image.layers()[0];
    let mut last = String::new();
    for _ in 0..10 {
        let error = place
            .layers
            .unpack(&place.store, layer, diff_id)
            .unwrap_err();
        assert_eq!(error.code(), "unpacking_failed", "{error}");
        last = error.to_string();
    }
    assert!(
        last.contains("has died 3 times") && last.contains("signal: 11"),
        "{last}"
    );
    assert_eq!(fs::read_to_string(count).unwrap().lines().count(), 3);
}
