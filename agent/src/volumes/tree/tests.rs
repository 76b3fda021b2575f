use std::{
    ffi::CString,
    fs,
    io::{BufReader, Cursor},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat};
use tucano_testkit::{ROOT, needs};

use super::{
    compare::compare,
    entry::{self, Bounds, Entry, Kind, Text},
    frames::{self, Frame},
    target::{self, Resume},
    walk::{write_contents, write_digests, write_manifest},
    *,
};

const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds {
    entries: 1000,
    bytes: 64 * MIB,
};

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let name = CString::new(name).unwrap();
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with everything that a volume may have.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("base/13/deep")).unwrap();
    fs::write(root.join("base/13/rows"), vec![7; 3_000_000]).unwrap();
    fs::hard_link(root.join("base/13/rows"), root.join("base/13/deep/again")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    // A log of last logins: huge, and hardly anything in it.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 5 << 30).unwrap();
    sparse.set_len(379 << 30).unwrap();
    let hole = fs::File::create(root.join("hole")).unwrap();
    hole.set_len(10 * MIB).unwrap();
    symlink("../../etc/passwd", root.join("base/link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n\"name");
    fs::write(root.join(odd), "odd").unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    mknodat(
        CWD,
        root.join("whiteout"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    chown(root.join("base"), Some(999), Some(998)).unwrap();
    chown(root.join("base/13/rows"), Some(999), Some(999)).unwrap();
    lchown(root.join("dangling"), Some(70), Some(71)).unwrap();
    fs::write(root.join("program"), "run").unwrap();
    chown(root.join("program"), Some(70), Some(70)).unwrap();
    fs::create_dir(root.join("tmp")).unwrap();
    fs::write(root.join("tmp/session"), "mine").unwrap();
    chown(root.join("tmp"), Some(5), Some(5)).unwrap();
    chown(root.join("tmp/session"), Some(6), Some(6)).unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("program", 0o6755);
    mode("base/13", 0o3070);
    mode("empty", 0);
    mode("tmp", 0o1777);
    mode("pipe", 0o622);
    // CAP_NET_BIND_SERVICE, as setcap(8) stores it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_attribute(&root.join("program"), "security.capability", &capability);
    set_attribute(&root.join("base/13/rows"), "user.note", b"a\0b");
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 231, 3, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255],
        &[16, 0, 5, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    set_attribute(&root.join("base"), "system.posix_acl_access", &acl);
    set_attribute(&root.join("base"), "system.posix_acl_default", &acl);
    for (path, seconds) in [
        ("dangling", 1),
        ("program", -5),
        ("base/13", 4_000_000_000),
        (".", 7),
    ] {
        set_time(&root.join(path), seconds, 123_456_789);
    }
}

use std::os::unix::ffi::OsStrExt;

struct Trees {
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        Self {
            from: tempfile::tempdir().unwrap(),
            to: tempfile::tempdir().unwrap(),
        }
    }

    fn source(&self) -> fs::File {
        fs::File::open(self.from.path()).unwrap()
    }

    fn target(&self) -> fs::File {
        fs::File::open(self.to.path()).unwrap()
    }

    fn manifest(&self) -> Vec<u8> {
        let mut text = Vec::new();
        write_manifest(&self.source(), &mut text).unwrap();
        text
    }

    fn entries(&self) -> Vec<Entry> {
        read(&self.manifest()).unwrap()
    }

    fn contents(&self, resume: Resume) -> Vec<u8> {
        let mut stream = Vec::new();
        write_contents(&self.source(), resume.entry, resume.offset, &mut stream).unwrap();
        stream
    }

    /// Writes the first bytes of what is missing; all by default.
    fn copy(&self, most: usize) -> Result<Resume, Fault> {
        let entries = self.entries();
        let resume = target::make(&self.target(), &entries)?;
        let stream = self.contents(resume);
        let part = &stream[..most.min(stream.len())];
        target::write(
            &self.target(),
            &entries,
            resume,
            &mut &part[..],
            &mut |_| {},
        )?;
        target::finish(&self.target(), &entries)?;
        Ok(resume)
    }

    fn difference(&self) -> Option<String> {
        let mut digests = Vec::new();
        write_digests(&self.source(), &mut digests).unwrap();
        let mut digests = BufReader::new(Cursor::new(digests));
        compare(
            &self.target(),
            &self.entries(),
            &mut digests,
            &mut || Ok(()),
        )
        .unwrap()
    }
}

fn read(manifest: &[u8]) -> Result<Vec<Entry>, Fault> {
    entry::read(&mut &manifest[..], BOUNDS)
}

#[test]
fn a_copy_has_everything() {
    if !needs(&[ROOT]) {
        return;
    }
    let trees = Trees::new();
    fill(trees.from.path());
    let _socket = std::os::unix::net::UnixListener::bind(trees.from.path().join("socket")).unwrap();
    set_time(trees.from.path(), 7, 5);
    let resume = trees.copy(usize::MAX).unwrap();
    assert_eq!(resume.done, 0);
    assert!(resume.total < 4 * MIB, "holes cost nothing: {resume:?}");
    assert_eq!(trees.difference(), None);

    // Looked at without the code that has copied it.
    let to = trees.to.path();
    assert!(
        !to.join("socket").exists(),
        "it means nothing without its program"
    );
    let sparse = fs::metadata(to.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 379 << 30);
    assert!(sparse.blocks() < 1000, "{}", sparse.blocks());
    let (one, other) = (to.join("base/13/rows"), to.join("base/13/deep/again"));
    assert_eq!(
        fs::metadata(one).unwrap().ino(),
        fs::metadata(other).unwrap().ino()
    );
    let program = fs::metadata(to.join("program")).unwrap();
    assert_eq!((program.mode() & 0o7777, program.uid()), (0o6755, 70));
    assert_eq!((program.mtime(), program.mtime_nsec()), (-5, 123_456_789));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(to.join("program"), c"security.capability", &mut value);
    assert_eq!(length.unwrap(), 20);
    let link = fs::symlink_metadata(to.join("dangling")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (70, 1));
    // The manifests are equal, too.
    let mut own = Vec::new();
    write_manifest(&trees.target(), &mut own).unwrap();
    assert_eq!(read(&own).unwrap().len(), trees.entries().len());
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_ended() {
    if !needs(&[ROOT]) {
        return;
    }
    let trees = Trees::new();
    fill(trees.from.path());
    let mut last = 0;
    for most in [1_000_000; 3] {
        let error = trees.copy(most).unwrap_err();
        assert!(matches!(error, Fault::Incomplete), "{error}");
        let resume = target::make(&trees.target(), &trees.entries()).unwrap();
        assert!(resume.done > last, "{resume:?}");
        last = resume.done;
    }
    trees.copy(usize::MAX).unwrap();
    assert_eq!(trees.difference(), None);
    let resume = trees.copy(usize::MAX).unwrap();
    assert_eq!(resume.done, resume.total, "nothing is copied twice");
    assert_eq!(trees.difference(), None);
}

#[test]
fn every_difference_is_found_and_content_is_copied_again() {
    if !needs(&[ROOT]) {
        return;
    }
    type Change = fn(&Path);
    let changes: [(Change, &str); 9] = [
        (
            |to| fs::write(to.join("more"), "").unwrap(),
            "the volume has another time",
        ),
        (
            |to| fs::remove_file(to.join("empty")).unwrap(),
            "the volume has another time",
        ),
        (
            |to| {
                fs::set_permissions(to.join("program"), fs::Permissions::from_mode(0o755)).unwrap()
            },
            "program has another mode",
        ),
        (
            |to| chown(to.join("base/13"), Some(1), None).unwrap(),
            "base/13 has another owner",
        ),
        (
            |to| set_time(&to.join("hole"), 1, 1),
            "hole has another time",
        ),
        (
            |to| set_attribute(&to.join("base/13/rows"), "user.more", b"1"),
            "base/13/deep/again has other extended attributes",
        ),
        (
            |to| {
                let time = fs::metadata(to.join("base/13/rows")).unwrap();
                let file = fs::File::options()
                    .write(true)
                    .open(to.join("base/13/rows"))
                    .unwrap();
                file.write_all_at(b"x", 2_000_000).unwrap();
                set_time(&to.join("base/13/rows"), time.mtime(), time.mtime_nsec());
            },
            "base/13/deep/again has other content",
        ),
        (
            |to| {
                fs::remove_file(to.join("base/13/deep/again")).unwrap();
                fs::copy(to.join("base/13/rows"), to.join("base/13/deep/again")).unwrap();
            },
            "base/13/deep has another time",
        ),
        (
            |to| {
                fs::write(to.join("more"), "").unwrap();
                set_time(to, 7, 123_456_789);
            },
            "the volume has other entries",
        ),
    ];
    for (change, expected) in changes {
        let trees = Trees::new();
        fill(trees.from.path());
        trees.copy(usize::MAX).unwrap();
        change(trees.to.path());
        assert_eq!(trees.difference().as_deref(), Some(expected));
        if expected.ends_with("content") {
            trees.copy(usize::MAX).unwrap();
            assert_eq!(trees.difference(), None, "{expected}");
        }
    }
}

/// A manifest's entry below the root.
fn entry(depth: usize, name: &str, kind: Kind) -> Entry {
    Entry {
        depth,
        name: Text(name.as_bytes().to_vec()),
        kind,
        uid: 0,
        gid: 0,
        mode: 0o644,
        modified: (0, 0),
        attributes: Vec::new(),
    }
}

fn file(size: u64) -> Kind {
    Kind::File { size, stored: size }
}

fn manifest(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    entry::write(&mut text, &entry(0, "", Kind::Directory)).unwrap();
    for entry in entries {
        entry::write(&mut text, entry).unwrap();
    }
    entry::write_end(&mut text, entries.len() as u64 + 1).unwrap();
    text
}

#[test]
fn hostile_manifests_are_refused() {
    let directory = || Kind::Directory;
    let with = |change: fn(&mut Entry)| {
        let mut changed = entry(1, "a", file(1));
        change(&mut changed);
        vec![changed]
    };
    let cases: Vec<(Vec<Entry>, &str)> = vec![
        (vec![entry(1, "..", file(1))], "no name"),
        (vec![entry(1, ".", directory())], "no name"),
        (vec![entry(1, "", directory())], "no name"),
        (vec![entry(1, "a/b", file(1))], "no name"),
        (vec![entry(1, "/etc/passwd", file(1))], "no name"),
        (vec![entry(1, "a\0", file(1))], "no name"),
        (vec![entry(1, &"a".repeat(256), file(1))], "no name"),
        (
            vec![entry(1, "a", file(1)), entry(1, "a", file(1))],
            "out of order",
        ),
        (
            vec![entry(1, "b", file(1)), entry(1, "a", file(1))],
            "out of order",
        ),
        (vec![entry(2, "a", file(1))], "in no directory"),
        (
            vec![entry(1, "a", file(1)), entry(2, "b", file(1))],
            "in no directory",
        ),
        (
            vec![
                entry(1, "a", Kind::Symlink(Text(b"/etc".to_vec()))),
                entry(2, "passwd", file(1)),
            ],
            "in no directory",
        ),
        (vec![entry(0, "", directory())], "in no directory"),
        (
            vec![entry(1, "a", file(65 * MIB))],
            "larger than the volume",
        ),
        (
            vec![entry(1, "a", file(40 * MIB)), entry(1, "b", file(40 * MIB))],
            "larger than",
        ),
        (
            vec![entry(
                1,
                "a",
                Kind::File {
                    size: u64::MAX,
                    stored: 0,
                },
            )],
            "larger than",
        ),
        (
            vec![entry(1, "a", Kind::Link(0))],
            "another name of nothing",
        ),
        (
            vec![entry(1, "a", Kind::Link(1))],
            "another name of nothing",
        ),
        (
            vec![entry(1, "a", Kind::Link(u64::MAX))],
            "another name of nothing",
        ),
        (
            vec![entry(1, "a", directory()), entry(1, "b", Kind::Link(1))],
            "of nothing",
        ),
        (
            vec![entry(1, "a", Kind::Symlink(Text(Vec::new())))],
            "its target",
        ),
        (with(|it| it.mode = 0o100_755), "its mode"),
        (with(|it| it.modified.1 = 1_000_000_000), "its mode or time"),
        (
            with(|it| {
                it.attributes = vec![(Text(b"trusted.overlay.opaque".to_vec()), Text::default())]
            }),
            "attributes",
        ),
        (
            with(|it| it.attributes = vec![(Text(b"security.selinux".to_vec()), Text::default())]),
            "attributes",
        ),
        (
            (0..1000)
                .map(|index| entry(1, &format!("{index:04}"), file(0)))
                .collect(),
            "limits.volume_entries",
        ),
        (
            (1..300)
                .map(|depth| entry(depth, "d", directory()))
                .collect(),
            "too deep",
        ),
    ];
    for (entries, expected) in cases {
        let error = read(&manifest(&entries)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let good = manifest(&[entry(1, "a", file(1))]);
    read(&good).unwrap();
    let cut = read(&good[..good.len() - 3]).unwrap_err();
    assert!(matches!(cut, Fault::Incomplete), "{cut}");
    let without_end = good
        .split_inclusive(|byte| *byte == b'\n')
        .take(2)
        .flatten();
    let without_end: Vec<u8> = without_end.copied().collect();
    assert!(matches!(read(&without_end), Err(Fault::Incomplete)));
    let endless = vec![b'['; 3 << 20];
    assert!(
        read(&endless)
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
}

#[test]
fn hostile_contents_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::File::open(directory.path()).unwrap();
    let entries = read(&manifest(&[
        entry(1, "a", file(10)),
        entry(1, "b", file(10)),
    ]))
    .unwrap();
    let begin = |entry, size| (Frame::File { entry, size }, Vec::new());
    let data = |offset, length| (Frame::Data { offset }, vec![1; length]);
    let (end_file, end) = ((Frame::FileEnd, Vec::new()), (Frame::End, Vec::new()));
    let cases = [
        (vec![data(0, 1)], "data of no file"),
        (vec![begin(0, 10)], "comes too early"),
        (vec![begin(1, 11)], "not what the manifest says"),
        (vec![begin(2, 10)], "the contents of a are left out"),
        (vec![begin(1, 10), data(0, 11)], "data outside of a"),
        (vec![begin(1, 10), data(u64::MAX, 1)], "data outside of a"),
        (
            vec![begin(1, 10), data(5, 1), data(0, 1)],
            "data outside of a",
        ),
        (vec![begin(1, 10), data(0, 0)], "data outside of a"),
        (vec![begin(1, 10), begin(2, 10)], "comes too early"),
        (
            vec![begin(1, 10), end_file.clone(), begin(1, 10)],
            "comes too early",
        ),
        (
            vec![begin(1, 10), end_file.clone(), end.clone()],
            "the contents of b are left out",
        ),
        (vec![begin(1, 10), end.clone()], "the last file has no end"),
        (
            vec![(Frame::Error("no\u{1b}[2J".to_owned()), Vec::new())],
            "no\\u{1b}[2J",
        ),
    ];
    for (sent, expected) in cases {
        let mut stream = Vec::new();
        for (frame, data) in &sent {
            frames::write(&mut stream, frame, data).unwrap();
        }
        let resume = target::make(&root, &entries).unwrap();
        let resume = Resume {
            entry: 1,
            offset: 0,
            ..resume
        };
        let error = target::write(&root, &entries, resume, &mut &stream[..], &mut |_| {});
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut large = b"D".to_vec();
    large.extend([0; 8]);
    large.extend(u32::MAX.to_le_bytes());
    let error = frames::read(&mut &large[..], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("exceeds"), "{error}");
}

#[test]
fn nothing_is_written_through_a_link_that_stands_in_the_way() {
    let outside = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = fs::File::open(directory.path()).unwrap();
    symlink(outside.path(), directory.path().join("d")).unwrap();
    symlink(outside.path().join("new"), directory.path().join("f")).unwrap();
    for entries in [
        vec![entry(1, "d", Kind::Directory), entry(2, "new", file(1))],
        vec![entry(1, "f", file(1))],
    ] {
        let entries = read(&manifest(&entries)).unwrap();
        target::make(&root, &entries).unwrap_err();
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_copied_is_a_lasting_fault() {
    if !needs(&[ROOT]) {
        return;
    }
    let trees = Trees::new();
    let device = trees.from.path().join("disk");
    mknodat(CWD, &device, FileType::BlockDevice, Mode::RUSR, 0x701).unwrap();
    let fault = read(&trees.manifest()).unwrap_err();
    assert!(fault.is_lasting(), "{fault}");
    assert_eq!(
        fault.to_string(),
        "disk is a device, which volumes cannot have: remove it"
    );
}
