use super::*;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

#[test]
fn seals_are_read_as_they_are_written() {
    let directory = Seal::Directory(DirectorySeal {
        entries: 7,
        sum: 1 << 100,
    });
    let file = Seal::File(FileSeal {
        bytes: 9,
        head_crc: 1,
        rest_crc: u32::MAX,
    });
    for seal in [directory, file] {
        assert_eq!(Seal::parse(&seal.text()), Some(seal));
    }
    for text in ["", "directory 1", "file 1 2 x", "other 1 2"] {
        assert_eq!(Seal::parse(text), None, "{text:?}");
    }
}

#[test]
fn whatever_changes_in_a_directory_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "content").unwrap();
    fs::write(root.join("g"), "").unwrap();
    symlink("f", root.join("d/l")).unwrap();
    let before = DirectorySeal::of(root).unwrap();
    assert_eq!(DirectorySeal::of(root).unwrap(), before);
    let file = File::options().write(true).open(root.join("d/f")).unwrap();
    let times = file.metadata().unwrap().modified().unwrap();
    let changed = |what: &str| assert_ne!(DirectorySeal::of(root).unwrap(), before, "{what}");
    file.write_all_at(b"contenT", 0).unwrap();
    file.set_modified(times).unwrap();
    changed("a byte");
    file.write_all_at(b"content", 0).unwrap();
    changed("a time");
    file.set_modified(times).unwrap();
    assert_eq!(DirectorySeal::of(root).unwrap(), before);
    let mode = file.metadata().unwrap().permissions().mode();
    file.set_permissions(fs::Permissions::from_mode(mode ^ 0o100))
        .unwrap();
    changed("a mode");
    file.set_permissions(fs::Permissions::from_mode(mode))
        .unwrap();
    let swapped = [("g", "h"), ("d/f", "g"), ("h", "d/f")];
    for (from, to) in swapped {
        fs::rename(root.join(from), root.join(to)).unwrap();
    }
    changed("two names");
}

#[test]
fn what_is_known_is_not_read() {
    let place = tempfile::tempdir().unwrap();
    for name in ["f", "g"] {
        fs::write(place.path().join(name), "content").unwrap();
    }
    let directory = File::open(place.path()).unwrap();
    let stat = |name: &str| statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let seal = |known: &KnownSums| DirectorySeal::with_known(&directory, known).unwrap();
    let read = DirectorySeal::of(place.path()).unwrap();
    assert_eq!(seal(&KnownSums::new()), read);
    let mut crc = Crc::new();
    crc.update(b"content");
    for names in [&["f"][..], &["f", "g"]] {
        let of = |name: &&str| {
            let stat = stat(name);
            (stat.st_ino, file_sum(&stat, crc.sum()))
        };
        let mut known: KnownSums = names.iter().map(of).collect();
        assert_eq!(seal(&known), read);
        known.values_mut().for_each(|sum| *sum ^= 1);
        assert_ne!(seal(&known), read);
    }
}
