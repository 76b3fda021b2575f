use std::{collections::BTreeSet, os::fd::AsRawFd};

use super::*;

#[test]
fn every_descriptor_is_examined_within_a_few_rounds() {
    for (size, share) in [
        (0_usize, 64_usize),
        (1, 64),
        (64, 64),
        (1000, 64),
        (32_768, 666),
    ] {
        let rounds = size.div_ceil(share);
        let mut seen = BTreeSet::new();
        for round in 0..=rounds {
            let numbers: Vec<_> = window(size, share, round).collect();
            assert!(numbers.len() <= share);
            seen.extend(numbers);
        }
        assert_eq!(seen.len(), size, "{size} {share}");
        assert!(window(size, share, usize::MAX).count() <= share);
    }
}

#[test]
fn the_work_of_one_measurement_is_limited() {
    assert_eq!(share(1), MAX_EXAMINED / 2);
    assert!(share(300) * 300 <= MAX_EXAMINED);
    assert_eq!(share(1_000_000), MIN_SHARE);
}

#[test]
fn unlinked_files_are_found_by_their_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let device = rustix::fs::stat(directory.path()).unwrap().st_dev;
    let linked = fs::File::create(directory.path().join("linked")).unwrap();
    let unlinked = tempfile::tempfile_in(directory.path()).unwrap();
    unlinked.set_len(5).unwrap();
    let path = |file: &fs::File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let found = unlinked_file(&path(&unlinked), Some(device)).unwrap();
    assert_eq!(found.st_size, 5);
    assert!(unlinked_file(&path(&linked), Some(device)).is_none());
    assert!(unlinked_file(&path(&unlinked), Some(device + 1)).is_none());
    assert!(unlinked_file(Path::new("/proc/self/fd/999999"), Some(device)).is_none());
    let own = Path::new("/proc/self");
    let all: Vec<_> = descriptors(own, 1 << 20, 0).collect();
    assert!(all.contains(&path(&unlinked)));
}
