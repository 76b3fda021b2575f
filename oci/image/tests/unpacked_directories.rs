//! Layers unpacked into directories.
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
fn every_kind_of_file_is_created() {
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

#[test]
fn names_times_and_attributes_of_pax_are_kept() {
    if !needs(&[ROOT]) {
        return;
    }
    let long = format!("{}/{}/end", "d".repeat(200), "e".repeat(200));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (_place, root) = unpack(&[
        Entry::file(&long, "x")
            .pax("mtime", "12.000000345")
            .pax("uid", "70000"),
        Entry::file("f", "y")
            .mode(0o755)
            .owner(1, 1)
            .pax("SCHILY.xattr.user.color", "red")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
            .pax("SCHILY.xattr.user.overlay.opaque", "y")
            .pax("SCHILY.xattr.system.posix_acl_access", "bad"),
    ]);
    let root = root.unwrap();
    let metadata = fs::metadata(root.join(&long)).unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec(), metadata.uid()),
        (12, 345, 70_000)
    );
    let file = root.join("f");
    assert_eq!(xattr(&file, "user.color").as_deref(), Some(&b"red"[..]));
    assert_eq!(
        xattr(&file, "security.capability").as_deref(),
        Some(&capability[..])
    );
    for foreign in [
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "system.posix_acl_access",
    ] {
        assert_eq!(xattr(&file, foreign), None, "{foreign}");
    }
}

#[test]
fn directories_keep_their_times() {
    if !needs(&[ROOT]) {
        return;
    }
    // More directories than are cached, visited twice.
    let names: Vec<String> = (0..200).map(|number| format!("d{number}")).collect();
    let directories = names.iter().map(|name| Entry::directory(name).mtime(500));
    let files = names
        .iter()
        .map(|name| Entry::file(&format!("{name}/f"), "").mtime(9));
    let entries: Vec<Entry> = directories.chain(files).collect();
    let (_place, root) = unpack(&entries);
    let root = root.unwrap();
    for name in &names {
        assert_eq!(
            fs::metadata(root.join(name)).unwrap().mtime(),
            500,
            "{name}"
        );
        assert!(root.join(name).join("f").is_file());
    }
}

#[test]
fn implied_directories_have_default_metadata() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, root) = unpack(&[Entry::file("/a/b/./f", "x")]);
    let metadata = fs::metadata(root.unwrap().join("a/b")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, 0));
}

#[test]
fn whiteouts_become_overlayfs_whiteouts() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, root) = unpack(&[
        Entry::file("d/.wh.gone", ""),
        Entry::file("o/.wh..wh..opq", ""),
        Entry::file("o/new", ""),
        Entry::file(".wh..wh.plnk", ""),
        Entry::file("d/.wh.dir", ""),
        Entry::file("d/dir/below", ""),
        Entry::file("d/kept", "x"),
        Entry::file("d/.wh.kept", ""),
        Entry::file("d/full/f", "x"),
        Entry::file("d/.wh.full", ""),
        Entry::file("d/.wh.again", ""),
        Entry::file("d/again", "x"),
    ]);
    let root = root.unwrap();
    assert!(is_whiteout(&root.join("d/gone")));
    assert!(is_opaque(&root.join("o")) && root.join("o/new").is_file());
    assert!(!is_opaque(&root.join("d")));
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        2,
        "AUFS's own is left out"
    );
    assert!(is_opaque(&root.join("d/dir")) && root.join("d/dir/below").is_file());
    assert_eq!(fs::read(root.join("d/kept")).unwrap(), b"x");
    assert!(is_opaque(&root.join("d/full")) && root.join("d/full/f").is_file());
    assert!(root.join("d/again").is_file());
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, root) = unpack(&[
        Entry::file("f", "old").mode(0o4755),
        Entry::hardlink("other", "f"),
        Entry::file("f", "new"),
        Entry::directory("d"),
        Entry::file("d/x", ""),
        Entry::file("d", "a file now"),
        Entry::file("e", "a file"),
        Entry::directory("e"),
        Entry::file("e/x", "y"),
        Entry::directory("kept").mode(0o700),
        Entry::file("kept/x", ""),
        Entry::directory("kept").mode(0o750),
        Entry::symlink("s", "d"),
        Entry::directory("s"),
    ]);
    let root = root.unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(
        (read("f"), read("other")),
        ("new".to_owned(), "old".to_owned())
    );
    assert_eq!(
        (read("d"), read("e/x")),
        ("a file now".to_owned(), "y".to_owned())
    );
    assert!(
        is_opaque(&root.join("e")),
        "the replaced file hid the lower layers' content of e"
    );
    assert!(root.join("kept/x").is_file());
    assert_eq!(
        fs::metadata(root.join("kept"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o750
    );
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_dir());
}

#[test]
fn symbolic_links_are_followed_within_the_layer() {
    if !needs(&[ROOT]) {
        return;
    }
    let (place, root) = unpack(&[
        Entry::directory("usr/lib"),
        Entry::symlink("lib", "usr/lib"),
        Entry::file("lib/a", "1"),
        Entry::symlink("absolute", "/usr"),
        Entry::file("absolute/lib/b", "2"),
        Entry::symlink("up", "../../../usr"),
        Entry::file("up/new/c", "3"),
        Entry::symlink("usr/self", "."),
        Entry::file("usr/self/self/self/d", "4"),
    ]);
    let root = root.unwrap();
    for (path, content) in [
        ("usr/lib/a", "1"),
        ("usr/lib/b", "2"),
        ("usr/new/c", "3"),
        ("usr/d", "4"),
    ] {
        assert_eq!(
            fs::read_to_string(root.join(path)).unwrap(),
            content,
            "{path}"
        );
    }
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn an_unpacked_layer_is_not_unpacked_again() {
    if !needs(&[ROOT]) {
        return;
    }
    let (place, root) = unpack(&[Entry::file("f", "x")]);
    let root = root.unwrap();
    let inode = fs::metadata(&root).unwrap().ino();
    let image = place
        .import(&image_of(&[&[Entry::file("f", "x")]]))
        .unwrap();
    assert_eq!(place.unpack(&image).unwrap()[0], root);
    assert_eq!(fs::metadata(&root).unwrap().ino(), inode);
    let (_, diff_id) = &image.layers()[0];
    assert_eq!(place.layers.get(diff_id), Some(root.clone()));
    place.layers.retain(std::slice::from_ref(diff_id)).unwrap();
    assert!(root.is_dir());
    place.layers.retain(&[]).unwrap();
    assert_eq!(place.layers.get(diff_id), None);
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn other_users_cannot_reach_what_is_unpacked() {
    let place = Place::new();
    for directory in ["layers", "store/blobs", "store/ingest"] {
        let metadata = fs::metadata(place.directory.path().join(directory)).unwrap();
        assert_eq!(metadata.mode() & 0o077, 0, "{directory}");
    }
}

#[test]
fn concurrent_calls_unpack_a_layer_once() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::new();
    let files: Vec<Entry> = (0..300)
        .map(|number| Entry::file(&format!("d/{number}"), vec![1; 5000]))
        .collect();
    let image = place.import(&image_of(&[&files])).unwrap();
    let (layer, diff_id) = &image.layers()[0];
    // A second handle on the same directory, as of another program.
    let root = place.directory.path().join("layers");
    let other = tucano_oci_image::Layers::open(&root, Default::default()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let layers = if number % 2 == 0 {
                &place.layers
            } else {
                &other
            };
            let store = &place.store;
            scope.spawn(move || {
                let root = layers.unpack(store, layer, diff_id).unwrap();
                assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 300);
            });
        }
    });
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn modes_and_owners_do_not_depend_on_directory_or_umask() {
    if !needs(&[ROOT]) {
        return;
    }
    let (_place, root) = unpack(&[
        Entry::file("before", "x").mode(0o777),
        Entry::file("closed", "x").mode(0),
        Entry::directory("shared").mode(0o2775).owner(0, 50),
        Entry::file("shared/ours", "x").mode(0o666),
        Entry::file("shared/theirs", "x").mode(0o2750).owner(0, 50),
        Entry::directory("shared/below"),
        Entry::file("shared/below/ours", "x"),
    ]);
    let root = root.unwrap();
    for (path, mode, gid) in [
        ("before", 0o777, 0),
        ("closed", 0, 0),
        ("shared", 0o2775, 50),
        ("shared/ours", 0o666, 0),
        ("shared/theirs", 0o2750, 50),
        ("shared/below", 0o755, 0),
        ("shared/below/ours", 0o644, 0),
    ] {
        let metadata = fs::metadata(root.join(path)).unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.gid()),
            (mode, gid),
            "{path}"
        );
    }
}

#[test]
fn all_layers_of_an_image_are_unpacked_in_order() {
    let names: Vec<String> = (0..60).map(|number| format!("file-{number}")).collect();
    let layers: Vec<[Entry; 1]> = names.iter().map(|name| [Entry::file(name, "x")]).collect();
    // The last layers are repeated.
    let repeated: Vec<&[Entry]> = layers
        .iter()
        .chain(&layers[50..])
        .map(|it| &it[..])
        .collect();
    let place = Place::new();
    let image = place.import(&image_of(&repeated)).unwrap();
    place
        .layers
        .unpack(&place.store, &image.layers()[7].0, &image.layers()[7].1)
        .unwrap();
    let unpack_all = || place.layers.unpack_all(&place.store, &image.layers());
    // Concurrent calls do not deadlock.
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(unpack_all);
        (unpack_all().unwrap(), first.join().unwrap().unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(first.len(), 70);
    for (directory, name) in first.iter().zip(names.iter().chain(&names[50..])) {
        assert!(directory.join(name).is_file(), "{name}");
    }
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn a_failing_layer_does_not_affect_the_others() {
    let place = Place::new();
    let image = place
        .import(&image_of(&[
            &[Entry::file("a", "x")],
            &[Entry::file("b", "x")],
        ]))
        .unwrap();
    let blob = image.layers()[1].0.digest().digest().to_owned();
    let path = place.directory.path().join("store/blobs/sha256").join(blob);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = place
        .layers
        .unpack_all(&place.store, &image.layers())
        .unwrap_err();
    assert_eq!(error.code(), "digest_mismatch", "{error}");
    assert_eq!(place.unfinished(), 0);
    assert!(place.layers.get(&image.layers()[1].1).is_none());
}
