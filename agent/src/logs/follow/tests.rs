use std::{
    fs::{self, File},
    io::Write,
};

use super::*;
use crate::logs::{Bounds, tail::tail};

/// The last lines, and a follower of what comes after them.
fn begin(home: &Path, retained: &Path, lines: usize) -> (Vec<u8>, FileFollower) {
    let bounds = Bounds { lines, bytes: 1000 };
    let tail = tail(home, "stdout.log", bounds).unwrap();
    let text = tail.chunks.into_iter().flat_map(|chunk| chunk.bytes);
    let follower = FileFollower::new(home, retained, "stdout.log", 1, tail.end);
    (text.collect(), follower)
}

fn append(home: &Path, text: &str) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(home.join("stdout.log"))
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn rotate(home: &Path) {
    for n in (1..5).rev() {
        let (from, to) = (
            home.join(format!("stdout.log.{n}")),
            home.join(format!("stdout.log.{}", n + 1)),
        );
        if from.exists() {
            fs::rename(from, to).unwrap();
        }
    }
    fs::rename(home.join("stdout.log"), home.join("stdout.log.1")).unwrap();
}

fn all(follower: &mut FileFollower) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = follower.read().unwrap() {
        text.extend(chunk.bytes);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn output_after_the_tail_is_returned_once() {
    let home = tempfile::tempdir().unwrap();
    append(home.path(), "a\nb\n");
    let (text, mut follower) = begin(home.path(), Path::new("/none"), 1);
    assert_eq!(text, b"b\n");
    assert_eq!(all(&mut follower), "");
    append(home.path(), "c\n");
    assert_eq!(all(&mut follower), "c\n");
    assert_eq!(all(&mut follower), "");
}

#[test]
fn rotations_lose_no_output() {
    let home = tempfile::tempdir().unwrap();
    append(home.path(), "a\n");
    let (_, mut follower) = begin(home.path(), Path::new("/none"), 100);
    append(home.path(), "b\n");
    rotate(home.path());
    append(home.path(), "c\n");
    rotate(home.path());
    append(home.path(), "d\n");
    assert_eq!(all(&mut follower), "b\nc\nd\n");
    rotate(home.path());
    assert_eq!(all(&mut follower), "");
    append(home.path(), "e\n");
    assert_eq!(all(&mut follower), "e\n");
}

#[test]
fn a_stream_without_files_is_followed_from_its_first_byte() {
    let home = tempfile::tempdir().unwrap();
    let (text, mut follower) = begin(home.path(), Path::new("/none"), 100);
    assert!(text.is_empty());
    append(home.path(), "first\n");
    assert_eq!(all(&mut follower), "first\n");
}

#[test]
fn units_are_read_whole() {
    let home = tempfile::tempdir().unwrap();
    append(home.path(), "abcd");
    let mut follower = FileFollower::new(home.path(), Path::new("/none"), "stdout.log", 3, None);
    assert_eq!(all(&mut follower), "abc");
    append(home.path(), "ef");
    assert_eq!(all(&mut follower), "def");
    // What is left of a unit when the file is rotated is never completed.
    append(home.path(), "g");
    rotate(home.path());
    append(home.path(), "hij");
    assert_eq!(all(&mut follower), "hij");
}

#[test]
fn following_ends_with_the_removal_of_the_process() {
    let home = tempfile::tempdir().unwrap();
    let (_, follower) = begin(home.path(), Path::new("/none"), 100);
    assert!(!follower.is_over());
    fs::remove_dir_all(home.path()).unwrap();
    assert!(follower.is_over());
}

#[test]
fn the_last_lines_of_a_removed_process_are_read_where_they_are_kept() {
    for begins_before in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let (home, kept) = (root.path().join("home"), root.path().join("kept"));
        fs::create_dir(&home).unwrap();
        if begins_before {
            append(&home, "first\n");
        }
        let (text, mut follower) = begin(&home, &kept, 100);
        assert_eq!(text.is_empty(), !begins_before);
        append(&home, "last\n");
        fs::create_dir(&kept).unwrap();
        fs::rename(home.join("stdout.log"), kept.join("stdout.log")).unwrap();
        fs::remove_dir_all(&home).unwrap();
        assert!(follower.is_over());
        assert_eq!(all(&mut follower), "last\n");
    }
}
