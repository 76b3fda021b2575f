use super::*;
use tucano_image_builder::{Compression, Entry, Layer};

fn tar(entries: &[Entry]) -> Vec<u8> {
    Layer::new(entries, Compression::None).unwrap().blob
}

fn paths(tar: &[u8], headers: u64) -> Result<Vec<String>, TarError> {
    let mut tarball = Tarball::new(tar, headers);
    let mut paths = Vec::new();
    while let Some(member) = tarball.next_member()? {
        paths.push(member.shown());
    }
    Ok(paths)
}

#[test]
fn members_are_read_in_order_and_unread_data_is_skipped() {
    let long = "x".repeat(300);
    let tar = tar(&[
        Entry::directory("d/"),
        Entry::file("d/f", vec![1; 1000]),
        Entry::file(&long, ""),
    ]);
    assert_eq!(paths(&tar, 9).unwrap(), ["d/", "d/f", &long]);
}

#[test]
fn reading_data_stops_at_the_members_end() {
    let tar = tar(&[Entry::file("a", "abc"), Entry::file("b", "")]);
    let mut tarball = Tarball::new(&tar[..], 9);
    tarball.next_member().unwrap();
    let mut buffer = [0; 10];
    assert_eq!(tarball.read_data(&mut buffer).unwrap(), 3);
    assert_eq!(tarball.read_data(&mut buffer).unwrap(), 0);
    assert_eq!(tarball.next_member().unwrap().unwrap().path, b"b");
    assert!(tarball.next_member().unwrap().is_none());
    assert!(tarball.is_end_marked());
}

#[test]
fn every_truncation_is_detected() {
    let tar = tar(&[Entry::file("a", "abc"), Entry::file("b", vec![7; 600])]);
    let end_of_data = 512 + 512 + 512 + 1024;
    for length in 0..end_of_data {
        let mut tarball = Tarball::new(&tar[..length], 9);
        let result: Result<Vec<_>, _> =
            std::iter::from_fn(|| tarball.next_member().transpose()).collect();
        assert!(
            result.is_err() || !tarball.is_end_marked(),
            "cut at {length}"
        );
    }
}

#[test]
fn the_final_padding_may_be_missing() {
    let whole = tar(&[Entry::file("a", "abc")]);
    for length in [512 + 3, 512 + 100, 1024] {
        let mut tarball = Tarball::new(&whole[..length], 9);
        assert!(tarball.next_member().unwrap().is_some());
        assert!(tarball.next_member().unwrap().is_none());
        assert!(!tarball.is_end_marked());
    }
    assert!(matches!(
        paths(&whole[..512 + 2], 9),
        Err(TarError::Truncated(_))
    ));
}

#[test]
fn the_number_and_size_of_headers_are_limited() {
    let tar_of_two = tar(&[Entry::file("a", ""), Entry::file("b", "")]);
    assert!(paths(&tar_of_two, 2).is_ok());
    assert!(matches!(
        paths(&tar_of_two, 1),
        Err(TarError::TooManyHeaders)
    ));
    let big = tar(&[Entry::file("a", "").pax("comment", vec![b'x'; 2 << 20])]);
    assert!(matches!(paths(&big, 9), Err(TarError::Malformed(text)) if text.contains("exceed")));
}

#[test]
fn a_broken_tar_is_distinguished_from_other_files() {
    assert!(matches!(paths(b"", 9), Err(TarError::NotTar)));
    assert!(matches!(paths(&[1; 2000], 9), Err(TarError::NotTar)));
    let mut broken = tar(&[Entry::file("a", ""), Entry::file("b", "")]);
    broken[512] ^= 1;
    assert!(matches!(paths(&broken, 9), Err(TarError::Malformed(_))));
}
