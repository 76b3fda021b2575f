use super::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

#[test]
fn files_directories_and_links_are_the_same_afterwards() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (from.path(), to.path());
    fs::create_dir_all(old.join("a/b")).unwrap();
    fs::write(old.join("a/b/file"), "text").unwrap();
    fs::set_permissions(old.join("a/b/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(old.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/etc/passwd", old.join("link")).unwrap();
    nix::unistd::mkfifo(&old.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    copy_content(&File::open(old).unwrap(), &File::open(new).unwrap()).unwrap();
    assert_eq!(fs::read_to_string(new.join("a/b/file")).unwrap(), "text");
    assert_eq!(
        fs::read_link(new.join("link")).unwrap().to_str(),
        Some("/etc/passwd")
    );
    for name in ["a", "a/b", "a/b/file", "link", "pipe"] {
        let of = |place: &std::path::Path| {
            let found = place.join(name).symlink_metadata().unwrap();
            (found.mode(), found.uid(), found.mtime(), found.mtime_nsec())
        };
        assert_eq!(of(old), of(new), "{name}");
    }
}

#[test]
fn a_too_deep_directory_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("d/".repeat(DEPTH_LIMIT))).unwrap();
    let open = |place: &tempfile::TempDir| File::open(place.path()).unwrap();
    let error = copy_content(&open(&from), &open(&to)).unwrap_err();
    assert!(error.to_string().contains("256 deep"), "{error}");
}

#[test]
fn names_of_one_file_are_names_of_one_file_afterwards() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (from.path(), to.path());
    fs::create_dir(old.join("a")).unwrap();
    fs::write(old.join("a/one"), "text").unwrap();
    fs::hard_link(old.join("a/one"), old.join("two")).unwrap();
    copy_content(&File::open(old).unwrap(), &File::open(new).unwrap()).unwrap();
    let inode = |name: &str| fs::metadata(new.join(name)).unwrap().ino();
    assert_eq!(inode("a/one"), inode("two"));
}

#[test]
fn a_directory_gets_the_metadata_of_another() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::set_permissions(from.path(), fs::Permissions::from_mode(0o2775)).unwrap();
    let (old, new) = (File::open(&from).unwrap(), File::open(&to).unwrap());
    copy_metadata(&old, &new).unwrap();
    let of = |file: &File| {
        let found = file.metadata().unwrap();
        (found.mode(), found.gid(), found.mtime(), found.mtime_nsec())
    };
    assert_eq!(of(&old), of(&new));
}
