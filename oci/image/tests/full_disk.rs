//! Behaviour on a full file system: the test runs itself again in a mount namespace with a small one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Place, image_of, platform};
use tucano_image_builder::Entry;
use tucano_oci_image::{Layers, Limits, Store};
use tucano_testkit::{ROOT, needs, tool};

/// The variable with the small file system's path for the inner run.
const SMALL: &str = "TUCANO_TEST_SMALL_DISK";

/// The small file system's path in the inner run. The outer run starts the inner one.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(small) = env::var_os(SMALL) {
        return Some(small.into());
    }
    if !needs(&[ROOT, tool("unshare"), tool("mount")]) {
        return None;
    }
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m,nr_inodes=200 none \"$1\" && exec \"$0\" --exact \"$2\" --nocapture";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(env::current_exe().unwrap())
        .arg(place.path())
        .arg(test)
        .env(SMALL, place.path())
        .status()
        .unwrap();
    assert!(status.success(), "the test in the namespace failed");
    None
}

/// Incompressible bytes (xorshift).
fn noise(bytes: usize) -> Vec<u8> {
    let next = |state: &u32| {
        let state = state ^ (state << 13);
        let state = state ^ (state >> 17);
        Some(state ^ (state << 5))
    };
    std::iter::successors(Some(1), next)
        .map(|state: u32| (state >> 8) as u8)
        .take(bytes)
        .collect()
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn while_an_archive_comes_in() {
    let Some(small) = small_disk("while_an_archive_comes_in") else {
        return;
    };
    let store = Store::open(&small.join("store"), Limits::default()).unwrap();
    let noise = noise(2_000_000);
    let archive = image_of(&[&[Entry::file("f", noise)]]).archive().unwrap();
    assert!(archive.len() > 1 << 20, "it would fit");
    let error = store.import_archive(&archive[..], &platform()).unwrap_err();
    assert_eq!(error.code(), "disk_full", "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(count(&small.join("store/ingest")), 0);
    assert_eq!(count(&small.join("store/blobs/sha256")), 0);
    // An image that fits is still imported.
    let little = image_of(&[&[Entry::file("f", "x")]]).archive().unwrap();
    store.import_archive(&little[..], &platform()).unwrap();
}

#[test]
fn while_a_layer_is_unpacked() {
    let Some(small) = small_disk("while_a_layer_is_unpacked") else {
        return;
    };
    // The store is on another file system.
    let place = Place::new();
    let layers = Layers::open(&small.join("layers"), Limits::default()).unwrap();
    let bytes = [Entry::file("f", vec![7; 2 << 20])];
    let inodes: Vec<Entry> = (0..300)
        .map(|number| Entry::file(&format!("d/{number}"), ""))
        .collect();
    for entries in [&bytes[..], &inodes[..]] {
        let image = place.import(&image_of(&[entries])).unwrap();
        let (layer, diff_id) = &image.layers()[0];
        let error = layers.unpack(&place.store, layer, diff_id).unwrap_err();
        assert_eq!(error.code(), "disk_full", "{error}");
        assert_eq!(count(&small.join("layers")), 0);
        assert_eq!(layers.get(diff_id), None);
    }
}
