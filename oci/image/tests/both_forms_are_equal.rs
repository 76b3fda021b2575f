//! A layer unpacked as a directory and as an EROFS image gives the same tree and the same errors. The mounts are in the
//! test's own namespace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use common::{Place, image_of};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use oci_spec::image::{Descriptor, Digest};
use rustix::fs::{OFlags, getxattr, listxattr};
use tucano_image_builder::{Compression, Entry, ImageSpec, Kind, Layer};
use tucano_oci_image::{Form, Layers, Limits};
use tucano_testkit::{ROOT, needs, tool};

/// Enters a mount namespace; returns whether the test can run.
fn in_own_namespace() -> bool {
    if !needs(&[ROOT, tucano_testkit::Need::Exists("/proc/self/ns/mnt")]) {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&Path>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .unwrap();
    true
}

/// A store and layers in both forms.
struct Both {
    place: Place,
    images: Layers,
}

impl Both {
    fn new() -> Self {
        let place = Place::new();
        let root = place.directory.path().join("images");
        let images = Layers::open_in_form(&root, Limits::default(), Form::Erofs).unwrap();
        Self { place, images }
    }

    /// The single layer of these entries, in both forms; or the errors of both.
    fn unpack(&self, layer: Layer) -> Result<(PathBuf, PathBuf), (String, String)> {
        let store = &self.place.store;
        let digest = tucano_oci_image::digest_of(&layer.blob);
        store.ingest_blob(&digest, &layer.blob[..]).unwrap();
        let media_type = layer.compression.media_type().into();
        let descriptor = Descriptor::new(media_type, layer.blob.len() as u64, digest);
        let diff_id: Digest = layer.diff_id.parse().unwrap();
        let directory = self.place.layers.unpack(store, &descriptor, &diff_id);
        let mounted = self.images.unpack(store, &descriptor, &diff_id);
        let image = ImageSpec::new("both").layer(layer).build().unwrap();
        let imported = self.place.import(&image);
        match (directory, mounted, imported) {
            (Ok(directory), Ok(mounted), Ok(_)) => Ok((directory, mounted)),
            (Err(a), Err(b), Err(_)) => Err((a.to_string(), b.to_string())),
            (a, b, c) => panic!("they differ: {a:?} {b:?} {c:?}"),
        }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        self.images.retain(&[]).unwrap();
    }
}

/// All visible properties of a tree, except those that always differ.
fn look(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut seen = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let whole = root.join(&path);
        let metadata = fs::symlink_metadata(&whole).unwrap();
        let kind = metadata.file_type();
        let name = path.as_os_str().as_bytes().to_vec();
        let is_whiteout = metadata.mode() & 0o170_000 == 0o020_000 && metadata.rdev() == 0;
        let time = (!is_whiteout).then_some((metadata.mtime(), metadata.mtime_nsec()));
        let mut text = format!(
            "{:o} {}:{} {time:?} {} {}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.nlink(),
            metadata.rdev()
        );
        if kind.is_dir() {
            let entries = fs::read_dir(&whole).unwrap();
            todo.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        } else {
            // A file's first name identifies its inode.
            let first = names.entry(metadata.ino()).or_insert_with(|| name.clone());
            *first = first.clone().min(name.clone());
        }
        if kind.is_symlink() {
            text += &format!(" -> {:?}", fs::read_link(&whole).unwrap());
        }
        if kind.is_file() {
            let content = fs::read(&whole).unwrap();
            text += &format!(
                " {} {}",
                content.len(),
                tucano_oci_image::digest_of(&content)
            );
        }
        if kind.is_file() || kind.is_dir() {
            text += &format!(" {:?}", xattrs(&whole));
        }
        seen.insert(name, format!("{} {text}", metadata.ino()));
    }
    // Inodes are identified by their first names.
    for text in seen.values_mut() {
        let (inode, rest) = text.split_once(' ').unwrap();
        let first = names.get(&inode.parse().unwrap());
        *text = format!(
            "{} {rest}",
            String::from_utf8_lossy(first.unwrap_or(&Vec::new()))
        );
    }
    seen
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = listxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let value = |name: &str| {
        let mut value = vec![0; 64 << 10];
        let length = getxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    let names = names.split('\0').filter(|name| !name.is_empty());
    let mut all: BTreeMap<_, _> = names.map(|name| (name.to_owned(), value(name))).collect();
    // The mark of the root, and an empty one, which is none, may differ.
    all.retain(|name, value| name != "trusted.overlay.tucano" || value == b"implied");
    all
}

fn compare(entries: &[Entry]) {
    compare_layer(
        &Both::new(),
        Layer::new(entries, Compression::Gzip).unwrap(),
    );
}

fn compare_layer(both: &Both, layer: Layer) -> PathBuf {
    let (directory, mounted) = both.unpack(layer).unwrap();
    let (expected, actual) = (look(&directory), look(&mounted));
    for (path, text) in &expected {
        let path_text = String::from_utf8_lossy(path);
        assert_eq!(actual.get(path), Some(text), "{path_text}");
    }
    assert_eq!(actual.len(), expected.len());
    mounted
}

#[test]
fn every_kind_of_file() {
    if !in_own_namespace() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}/end", "d".repeat(200), "e".repeat(255));
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    compare(&[
        Entry::directory("./").mode(0o711).owner(3, 4).mtime(77),
        Entry::directory("d/")
            .mode(0o1777)
            .owner(5, 6)
            .mtime(1000)
            .pax("SCHILY.xattr.user.of", "a directory"),
        Entry::file("d/setuid", "content")
            .mode(0o4755)
            .owner(7, 8)
            .mtime(2000),
        Entry::file("d/large", content)
            .mtime(9)
            .pax("mtime", "-12.000000345"),
        Entry::file("d/block", vec![7; 512]),
        Entry::file("d/two-blocks", vec![8; 1024]),
        Entry::file("d/page", vec![9; 4096]),
        Entry::file("d/page-and-one", vec![9; 4097]),
        Entry::symlink("d/link", "/etc/../x")
            .owner(9, 10)
            .mtime(3000),
        Entry::symlink("d/long-link", &"t/".repeat(1500)),
        Entry::hardlink("d/second", "d/setuid"),
        Entry::hardlink("third", "d/setuid"),
        Entry::hardlink("other-link", "d/link"),
        Entry::new("d/fifo", Kind::Fifo).mode(0o640).mtime(4000),
        Entry::new("d/null", Kind::CharDevice { major: 1, minor: 3 })
            .mode(0o666)
            .owner(0, 11),
        Entry::new(
            "d/loop",
            Kind::BlockDevice {
                major: 259,
                minor: 70_000,
            },
        )
        .mode(0o660),
        Entry::file("high", "")
            .pax("uid", "4000000000")
            .pax("gid", "3000000000"),
        Entry::file(&long, "x").pax("mtime", "12.000000345"),
        Entry::file("x", "y")
            .mode(0o755)
            .pax("SCHILY.xattr.user.color", "red")
            .pax("SCHILY.xattr.user.large", vec![b'l'; 1500])
            .pax("SCHILY.xattr.user.empty", "")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
            .pax("SCHILY.xattr.user.overlay.opaque", "y"),
        Entry::file("\u{e4}\u{f6} with spaces\n", ""),
        Entry::file("-before-the-dots", ""),
        Entry::file("!before-the-dots", ""),
        Entry::directory("empty"),
    ]);
}

#[test]
fn whiteouts_and_opaque_directories() {
    if !in_own_namespace() {
        return;
    }
    let both = Both::new();
    let entries = [
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
        Entry::directory("e"),
        Entry::file("e/x", ""),
        Entry::file("e", "a file"),
        Entry::directory("e").mode(0o700),
    ];
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    let mounted = compare_layer(&both, layer);
    assert!(xattrs(&mounted.join("o")).contains_key("trusted.overlay.opaque"));
}

#[test]
fn entries_that_replace_others() {
    if !in_own_namespace() {
        return;
    }
    compare(&[
        Entry::file("f", "old").mode(0o4755),
        Entry::hardlink("other", "f"),
        Entry::file("f", "new").pax("SCHILY.xattr.user.a", "1"),
        Entry::directory("d"),
        Entry::file("d/x", ""),
        Entry::hardlink("from-d", "d/x"),
        Entry::file("d", "a file now"),
        Entry::directory("kept")
            .mode(0o700)
            .pax("SCHILY.xattr.user.a", "1"),
        Entry::file("kept/x", ""),
        Entry::directory("kept")
            .mode(0o750)
            .pax("SCHILY.xattr.user.b", "2"),
        Entry::symlink("s", "d"),
        Entry::directory("s"),
        Entry::directory("usr/lib").mtime(5),
        Entry::symlink("lib", "usr/lib"),
        Entry::file("lib/a", "1"),
        Entry::symlink("absolute", "/usr"),
        Entry::file("absolute/lib/b", "2"),
        Entry::symlink("up", "../../../usr"),
        Entry::file("up/new/c", "3"),
        Entry::symlink("usr/self", "."),
        Entry::file("usr/self/self/self/d", "4"),
        Entry::symlink("usr/lib/back", "../../kept"),
        Entry::file("lib/back/y", "5"),
        Entry::directory("absolute/lib/b").mode(0o711),
    ]);
}

#[test]
fn large_directories() {
    if !in_own_namespace() {
        return;
    }
    let mut entries: Vec<Entry> = (0..5000)
        .map(|number| Entry::file(&format!("d/{number}-{}", "n".repeat(number % 200)), ""))
        .collect();
    entries.extend((0..300).map(|number| Entry::directory(&format!("d/{number}/x"))));
    let both = Both::new();
    let mounted = compare_layer(&both, Layer::new(&entries, Compression::Gzip).unwrap());
    assert!(mounted.join("d/299/x").is_dir());
    assert!(!mounted.join("d/5000-").exists());
}

#[test]
fn files_with_holes() {
    if !in_own_namespace() || !needs(&[tool("tar")]) {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let file = File::create(source.path().join("f")).unwrap();
    for place in [0, 1 << 20, (3 << 20) + 100] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 5000], place).unwrap();
    }
    file.set_len(300 << 20).unwrap();
    let tar = Command::new("tar")
        .args(["--sparse", "--format=posix", "-c", "-C"])
        .arg(source.path())
        .arg("f")
        .output()
        .unwrap();
    let both = Both::new();
    compare_layer(
        &both,
        Layer::from_tar(&tar.stdout, Compression::Zstd).unwrap(),
    );
    let images = both.place.directory.path().join("images");
    let image = fs::read_dir(images)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "erofs"));
    let image = fs::metadata(image.unwrap()).unwrap();
    assert!(
        image.len() > 300 << 20 && image.blocks() * 512 < 1 << 20,
        "the file is sparse"
    );
}

#[test]
fn files_of_this_machine() {
    if !in_own_namespace() || !needs(&[tool("tar")]) {
        return;
    }
    let tar = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "-c",
            "-C",
            "/",
            "etc",
            "usr/share/zoneinfo",
            "usr/lib/x86_64-linux-gnu/perl-base",
        ])
        .output()
        .unwrap();
    compare_layer(
        &Both::new(),
        Layer::from_tar(&tar.stdout, Compression::Zstd).unwrap(),
    );
}

#[test]
fn both_forms_refuse_the_same_layers() {
    if !in_own_namespace() {
        return;
    }
    let deep = vec!["d"; 200].join("/");
    for (what, entries) in [
        ("link to nothing", vec![Entry::hardlink("x", "missing")]),
        (
            "link to a directory of nothing",
            vec![Entry::hardlink("x", "no/thing")],
        ),
        (
            "link to a directory",
            vec![Entry::directory("d"), Entry::hardlink("x", "d")],
        ),
        (
            "beneath a file",
            vec![Entry::file("f", ""), Entry::file("f/x", "")],
        ),
        (
            "link to nothing as parent",
            vec![Entry::symlink("l", "no"), Entry::file("l/x", "")],
        ),
        (
            "link out",
            vec![Entry::symlink("l", "/no/where"), Entry::file("l/x", "")],
        ),
        (
            "link to a file",
            vec![
                Entry::file("f", ""),
                Entry::symlink("l", "f"),
                Entry::file("l/x", ""),
            ],
        ),
        (
            "link through a link",
            vec![
                Entry::symlink("l", "d"),
                Entry::file("d/f", ""),
                Entry::hardlink("x", "l/f"),
            ],
        ),
        (
            "its own way",
            vec![Entry::file("d/f", ""), Entry::hardlink("d", "d/f")],
        ),
        (
            "loop",
            vec![
                Entry::symlink("a", "b"),
                Entry::symlink("b", "a"),
                Entry::file("a/x", ""),
            ],
        ),
        (
            "depth through links",
            vec![
                Entry::directory(&deep),
                Entry::symlink("l", &deep),
                Entry::directory(&format!("l/{deep}")),
                Entry::symlink("m", &format!("l/{deep}")),
                Entry::file("m/x", ""),
            ],
        ),
        (
            "attribute",
            vec![Entry::file("f", "").pax("SCHILY.xattr.user.big", vec![b'x'; 70_000])],
        ),
        (
            "name",
            vec![Entry::file("f", "").pax(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), "x")],
        ),
        (
            "capability",
            vec![Entry::file("f", "").pax("SCHILY.xattr.security.capability", "x")],
        ),
    ] {
        let both = Both::new();
        let errors = both.unpack(Layer::new(&entries, Compression::Gzip).unwrap());
        let (directory, image) = errors.unwrap_err();
        assert_eq!(directory, image, "{what}");
        let images = both.place.directory.path().join("images");
        assert_eq!(fs::read_dir(images).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn loop_devices_work_too() {
    if !in_own_namespace() || !needs(&[tool("mount")]) {
        return;
    }
    let place = Place::new();
    let root = place.directory.path().join("images");
    let images = Layers::open_with_loop_devices(&root, Limits::default()).unwrap();
    images.try_erofs().unwrap();
    let image = place
        .import(&image_of(&[&[Entry::file("d/f", vec![7; 5000])]]))
        .unwrap();
    let (layer, diff_id) = &image.layers()[0];
    let mounted = images.unpack(&place.store, layer, diff_id).unwrap();
    assert_eq!(fs::read(mounted.join("d/f")).unwrap(), [7; 5000]);
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let own = mounts
        .lines()
        .find(|line| line.contains(mounted.to_str().unwrap()));
    assert!(own.unwrap().contains("/dev/loop"), "{own:?}");
    images.retain(&[]).unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn a_mount_is_reused_and_recreated() {
    if !in_own_namespace() {
        return;
    }
    let both = Both::new();
    both.images.try_erofs().unwrap();
    let image = both
        .place
        .import(&image_of(&[&[Entry::file("f", "x")]]))
        .unwrap();
    let (layer, diff_id) = &image.layers()[0];
    let mounted = both
        .images
        .unpack(&both.place.store, layer, diff_id)
        .unwrap();
    let device = fs::metadata(&mounted).unwrap().dev();
    // Another program, such as the next agent, uses the same mount, whatever its own form.
    let root = both.place.directory.path().join("images");
    let next = Layers::open(&root, Limits::default()).unwrap();
    assert_eq!(next.get(diff_id), Some(mounted.clone()));
    assert_eq!(fs::metadata(&mounted).unwrap().dev(), device);
    // After a reboot nothing is mounted.
    nix::mount::umount(&mounted).unwrap();
    assert!(!mounted.join("f").exists());
    assert_eq!(next.get(diff_id), Some(mounted.clone()));
    assert!(mounted.join("f").exists());
    // A mount in use survives the removal of the layer.
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let held = rustix::fs::open(&mounted, flags, rustix::fs::Mode::empty()).unwrap();
    next.retain(&[]).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let within = format!("/proc/self/fd/{}/f", held.as_raw_fd());
    assert_eq!(fs::read(within).unwrap(), b"x");
}
