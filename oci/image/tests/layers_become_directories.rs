//! Unpacking: what a layer says is what the directory holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use common::{Place, image_of};
use rustix::fs::getxattr;
use tucano_image_builder::{Entry, Kind};
use tucano_oci_image::Error;
use tucano_testkit::{ROOT, needs};

/// The directory of a single layer of these entries.
fn unpack(entries: &[Entry]) -> (Place, Result<PathBuf, Error>) {
    let place = Place::new();
    let image = place.import(&image_of(&[entries])).unwrap();
    let unpacked = place.unpack(&image).map(|layers| layers[0].clone());
    (place, unpacked)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let length = getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn every_kind_of_file_is_made() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, root) = unpack(&[
        Entry::directory("./").mode(0o711).owner(3, 4).mtime(77),
        Entry::directory("d/").mode(0o1777).owner(5, 6).mtime(1000),
        Entry::file("d/setuid", "content")
            .mode(0o4755)
            .owner(7, 8)
            .mtime(2000),
        Entry::symlink("d/link", "/etc/../x")
            .owner(9, 10)
            .mtime(3000),
        Entry::hardlink("d/second", "d/setuid"),
        Entry::new("d/fifo", Kind::Fifo).mode(0o640).mtime(4000),
        Entry::new("d/null", Kind::CharDevice { major: 1, minor: 3 })
            .mode(0o666)
            .owner(0, 11),
        Entry::new("d/loop", Kind::BlockDevice { major: 7, minor: 0 }).mode(0o660),
    ]);
    let root = root.unwrap();
    let of = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    let brief = |path: &str| {
        let metadata = of(path);
        (
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
        )
    };
    assert_eq!(brief(""), (0o711, 3, 4, 77));
    assert_eq!(brief("d"), (0o1777, 5, 6, 1000));
    assert_eq!(brief("d/setuid"), (0o4755, 7, 8, 2000));
    assert_eq!(fs::read(root.join("d/setuid")).unwrap(), b"content");
    assert_eq!(
        fs::read_link(root.join("d/link")).unwrap(),
        Path::new("/etc/../x")
    );
    assert_eq!(
        (of("d/link").uid(), of("d/link").gid(), of("d/link").mtime()),
        (9, 10, 3000)
    );
    assert_eq!(of("d/second").ino(), of("d/setuid").ino());
    assert_eq!(
        (
            of("d/fifo").file_type().is_fifo(),
            of("d/fifo").mode() & 0o777
        ),
        (true, 0o640)
    );
    assert_eq!(
        (
            of("d/null").file_type().is_char_device(),
            of("d/null").rdev()
        ),
        (true, 0x103)
    );
    assert_eq!(brief("d/null"), (0o666, 0, 11, 0));
    assert!(of("d/loop").file_type().is_block_device());
}
