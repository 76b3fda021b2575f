use std::fs;

use super::*;

fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(home.path().join(name), text).unwrap();
    }
    home
}

fn tail_of(files: &[(&str, &str)], lines: usize, bytes: u64) -> String {
    let home = home(files);
    let tail = tail(home.path(), "stdout.log", Bounds { lines, bytes }).unwrap();
    let text = tail.chunks.iter().flat_map(|chunk| chunk.bytes.clone());
    String::from_utf8(text.collect()).unwrap()
}

#[test]
fn the_last_lines_are_complete() {
    let files = [("stdout.log", "a\nb\nc\n"), ("stderr.log", "x\n")];
    assert_eq!(tail_of(&files, 2, 1000), "b\nc\n");
    assert_eq!(tail_of(&files, 3, 1000), "a\nb\nc\n");
    assert_eq!(tail_of(&files, 9, 1000), "a\nb\nc\n");
    assert_eq!(tail_of(&files, 0, 1000), "");
}

#[test]
fn an_unfinished_last_line_counts() {
    assert_eq!(tail_of(&[("stdout.log", "a\nb\nc")], 2, 1000), "b\nc");
    assert_eq!(tail_of(&[("stdout.log", "abc")], 1, 1000), "abc");
}

#[test]
fn lines_come_from_rotated_files_as_far_as_needed() {
    let files = [
        ("stdout.log", "e\n"),
        ("stdout.log.1", "c\nd\n"),
        ("stdout.log.2", "a\nb\n"),
    ];
    assert_eq!(tail_of(&files, 1, 1000), "e\n");
    assert_eq!(tail_of(&files, 2, 1000), "d\ne\n");
    assert_eq!(tail_of(&files, 4, 1000), "b\nc\nd\ne\n");
    assert_eq!(tail_of(&files, 99, 1000), "a\nb\nc\nd\ne\n");
}

#[test]
fn a_gap_in_the_rotated_files_ends_the_search() {
    assert_eq!(
        tail_of(&[("stdout.log.1", "c\n"), ("stdout.log.3", "a\n")], 9, 1000),
        "c\n"
    );
}

#[test]
fn bytes_are_limited() {
    let files = [("stdout.log", "cccc\n"), ("stdout.log.1", "aaaa\nbbbb\n")];
    assert_eq!(tail_of(&files, 99, 7), "b\ncccc\n");
    assert_eq!(tail_of(&files, 99, 3), "cc\n");
}

#[test]
fn a_stream_without_files_is_empty() {
    assert_eq!(tail_of(&[], 10, 1000), "");
}
