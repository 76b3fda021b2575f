use super::*;
use crate::digest::digest_of;

fn link(target: &str, kind: EntryType) -> Member {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_link_name_literal(target).unwrap();
    Member::new(&header, crate::tarball::header::Extension::default()).unwrap()
}

#[test]
fn links_are_followed_within_the_archive() {
    let mut files = Files::default();
    let digest = digest_of(b"layer");
    files.put("a/layer.tar".to_owned(), digest.clone()).unwrap();
    for (path, target, kind) in [
        ("b/layer.tar", "../a/layer.tar", EntryType::Symlink),
        ("c/layer.tar", "../b/layer.tar", EntryType::Symlink),
        ("d/layer.tar", "a/layer.tar", EntryType::Link),
        ("loop", "loop", EntryType::Symlink),
    ] {
        files
            .put_link(path.to_owned(), &link(target, kind))
            .unwrap();
    }
    for path in ["a/layer.tar", "./b/layer.tar", "c/layer.tar", "d/layer.tar"] {
        assert_eq!(files.find(path).unwrap(), digest, "{path}");
    }
    assert!(
        files
            .find("loop")
            .unwrap_err()
            .to_string()
            .contains("cycle")
    );
    assert!(
        files
            .find("../a")
            .unwrap_err()
            .to_string()
            .contains("no path")
    );
    assert!(
        files
            .find("x")
            .unwrap_err()
            .to_string()
            .contains("not in the archive")
    );
}

#[test]
fn links_out_of_the_archive_are_refused() {
    for target in ["/etc/passwd", "../../a", ".."] {
        let error = Files::default()
            .put_link("layer.tar".to_owned(), &link(target, EntryType::Symlink))
            .unwrap_err();
        assert!(error.to_string().contains("leads out"), "{target}: {error}");
    }
}

#[test]
fn the_number_of_files_is_limited() {
    let mut files = Files::default();
    for number in 0..DOCKER_FILES {
        files.put(number.to_string(), digest_of(b"")).unwrap();
    }
    let error = files.put("more".to_owned(), digest_of(b"")).unwrap_err();
    assert_eq!(error.code(), "too_large");
}
