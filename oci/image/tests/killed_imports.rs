//! The store survives kill -9 during imports and collection: this test runs itself again, and kills that process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use common::{hello, image_of, platform};
use tucano_image_builder::{Entry, Layout};
use tucano_oci_image::{Layers, Limits, Store};
use tucano_testkit::{ROOT, needs};

/// The variable with the store's path for the killed process.
const PLACE: &str = "TUCANO_TEST_KILLED_IN";

fn images() -> [Layout; 2] {
    let files: Vec<Entry> = (0..200)
        .map(|number| Entry::file(&format!("d/{number}"), vec![number as u8; 3000]))
        .collect();
    [hello(), image_of(&[&files])]
}

/// The killed process: imports, unpacks and collects images in a loop, and reports each round.
fn work(place: &Path) {
    let store = Store::open(&place.join("store"), Limits::default()).unwrap();
    let layers = Layers::open(&place.join("layers"), Limits::default()).unwrap();
    let archives = images().map(|image| image.archive().unwrap());
    loop {
        for archive in &archives {
            let image = store.import_archive(&archive[..], &platform()).unwrap();
            layers.unpack_all(&store, &image.layers()).unwrap();
            println!("unpacked");
        }
        store.retain(&[]).unwrap();
        layers.retain(&[]).unwrap();
        println!("collected");
        std::io::stdout().flush().unwrap();
    }
}

/// Checks that all blobs and layers are complete, and that no incomplete ones remain.
fn check(place: &Path) {
    let store = Store::open(&place.join("store"), Limits::default()).unwrap();
    let layers = Layers::open(&place.join("layers"), Limits::default()).unwrap();
    assert_eq!(fs::read_dir(place.join("store/ingest")).unwrap().count(), 0);
    for blob in fs::read_dir(place.join("store/blobs/sha256")).unwrap() {
        let name = blob.unwrap().file_name().into_string().unwrap();
        store
            .verify_blob(&format!("sha256:{name}").parse().unwrap())
            .unwrap();
    }
    for layer in fs::read_dir(place.join("layers")).unwrap() {
        let name = layer.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name} remains");
    }
    for layout in images() {
        let image = store
            .import_archive(&layout.archive().unwrap()[..], &platform())
            .unwrap();
        for directory in layers.unpack_all(&store, &image.layers()).unwrap() {
            let files = directory.join("d");
            assert!(!files.exists() || fs::read_dir(files).unwrap().count() == 200);
        }
    }
}

#[test]
fn at_any_moment() {
    if let Some(place) = env::var_os(PLACE) {
        return work(Path::new(&place));
    }
    if !needs(&[ROOT]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for lines in 1..8 {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "at_any_moment", "--nocapture"])
            .env(PLACE, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(victim.stdout.take().unwrap()).lines();
        let done = said
            .map(Result::unwrap)
            .filter(|line| line.ends_with("unpacked") || line == "collected");
        // At a different moment each time.
        assert_eq!(done.take(lines).count(), lines);
        victim.kill().unwrap();
        victim.wait().unwrap();
        check(place.path());
    }
}
