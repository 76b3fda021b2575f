use super::*;
use std::os::unix::fs::symlink;

fn root() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let fd = std::fs::File::open(directory.path()).unwrap().into();
    (directory, Root(fd))
}

#[test]
fn absolute_links_stay_inside() {
    let (directory, root) = root();
    symlink("/etc", directory.path().join("run")).unwrap();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    root.file(Path::new("/run/made"), Symlinks::InRoot).unwrap();
    assert!(directory.path().join("etc/made").is_file());
    assert!(!Path::new("/etc/made").exists());
}

#[test]
fn climbing_links_stay_inside() {
    let (directory, root) = root();
    symlink("../../../../..", directory.path().join("up")).unwrap();
    root.directory(Path::new("/up/made/here"), Symlinks::InRoot)
        .unwrap();
    assert!(directory.path().join("made/here").is_dir());
}

#[test]
fn links_are_refused_where_asked() {
    let (directory, root) = root();
    symlink("/elsewhere", directory.path().join("proc")).unwrap();
    let error = root
        .directory(Path::new("/proc"), Symlinks::Refuse)
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn a_file_is_created_where_a_dangling_link_leads() {
    let (directory, root) = root();
    let place = directory.path();
    std::fs::create_dir_all(place.join("etc")).unwrap();
    symlink("../run/x/resolv.conf", place.join("etc/resolv.conf")).unwrap();
    symlink("/etc/resolv.conf", place.join("chained")).unwrap();
    root.file(Path::new("/chained"), Symlinks::InRoot).unwrap();
    assert!(place.join("run/x/resolv.conf").is_file());
    assert!(place.join("etc/resolv.conf").is_symlink() && place.join("chained").is_symlink());
    // Nor does a link lead out, however it climbs.
    symlink("../../../../../outside", place.join("etc/up")).unwrap();
    root.file(Path::new("/etc/up"), Symlinks::InRoot).unwrap();
    assert!(place.join("outside").is_file());
}

#[test]
fn a_directory_is_created_where_a_dangling_link_leads() {
    let (directory, root) = root();
    symlink("/run/data", directory.path().join("data")).unwrap();
    root.directory(Path::new("/data/x"), Symlinks::InRoot)
        .unwrap();
    assert!(directory.path().join("run/data/x").is_dir());
    let refused = root.directory(Path::new("/data"), Symlinks::Refuse);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn links_in_a_circle_are_refused() {
    let (directory, root) = root();
    symlink("b", directory.path().join("a")).unwrap();
    symlink("a", directory.path().join("b")).unwrap();
    let error = root.file(Path::new("/a"), Symlinks::InRoot).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn parents_are_made_and_dots_refused() {
    let (directory, root) = root();
    root.directory(Path::new("/a/b/c"), Symlinks::InRoot)
        .unwrap();
    root.directory(Path::new("/a/b/c"), Symlinks::InRoot)
        .unwrap();
    assert!(directory.path().join("a/b/c").is_dir());
    assert!(
        root.directory(Path::new("/a/../x"), Symlinks::InRoot)
            .is_err()
    );
}
