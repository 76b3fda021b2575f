use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn files_are_charged_for_their_blocks_and_their_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    assert_eq!(linked_bytes(directory.path()).unwrap(), 0);
    fs::create_dir(path("below")).unwrap();
    fs::write(path("below/file"), vec![1; 100_000]).unwrap();
    let first = linked_bytes(directory.path()).unwrap();
    assert!((100_000..200_000).contains(&first), "{first}");

    fs::hard_link(path("below/file"), path("again")).unwrap();
    fs::File::create(path("sparse"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    symlink("/usr", path("link")).unwrap();
    let second = linked_bytes(directory.path()).unwrap();
    assert!(second < first + 30_000, "{second} after {first}");

    for index in 0..100 {
        fs::write(path(&format!("empty-{index}")), "").unwrap();
    }
    assert!(linked_bytes(directory.path()).unwrap() >= second + 100 * ENTRY_BYTES);
}

#[test]
fn a_slow_measurement_delays_the_next_one_by_a_limited_time() {
    let second = Duration::from_secs(1);
    assert_eq!(pause(second, Duration::ZERO), second);
    assert_eq!(pause(second, second / 10), second * 2);
    assert_eq!(pause(second, second * 3600), MAX_PAUSE);
    assert_eq!(pause(second * 60, second * 3600), second * 60);
}

#[test]
fn too_deep_nesting_exceeds_any_limit() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d/".repeat(MAX_DEPTH + 1));
    fs::create_dir_all(deep).unwrap();
    assert_eq!(linked_bytes(directory.path()).unwrap(), u64::MAX);
}

#[test]
fn a_missing_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(linked_bytes(&directory.path().join("gone")).is_err());
}
