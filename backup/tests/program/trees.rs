//! Trees: everything of them comes back, and nothing of the host gets into them.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use tucano_backup::{Backup, Class, Frame, Operation, Outcome, Parent, Restore, Target};
use tucano_testkit::{ROOT, needs, tool};

use crate::support::{Place, facts, noise, tree};

/// A tree with everything that a volume may have.
pub(crate) fn everything(root: &Path) {
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).expect(name);
    fs::create_dir_all(root.join("base/deep/er")).expect("directories");
    write("base/table", &noise(1, 3_000_000));
    write("base/empty", b"");
    write("base/deep/er/file", b"content");
    fs::hard_link(root.join("base/table"), root.join("base/deep/same")).expect("a link");
    symlink("/etc/passwd", root.join("outside")).expect("a link");
    symlink("base/table", root.join("inside")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    let name = std::ffi::OsString::from_vec(b"not \xff UTF-8 \\ \"quoted\"\n".to_vec());
    fs::write(root.join(name), b"odd").expect("a file");
    let sparse = File::create(root.join("sparse")).expect("a file");
    sparse.set_len(8 << 20).expect("a size");
    sparse.write_all_at(b"data", 4 << 20).expect("some data");
    let attribute = setxattr(
        root.join("base/empty"),
        "user.note",
        b"\0\xffbinary",
        XattrFlags::empty(),
    );
    attribute.expect("an attribute");
    setxattr(
        root.join("base"),
        "user.directory",
        b"too",
        XattrFlags::empty(),
    )
    .expect("an attribute");
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    let owned = |name: &str, mode| {
        chown(root.join(name), Some(999), Some(998)).expect("an owner");
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("a mode");
    };
    owned("base/deep/er/file", 0o4711);
    owned("base/deep", 0o2770);
    owned("base", 0o1777);
    lchown(root.join("outside"), Some(7), Some(8)).expect("an owner");
    owned("", 0o700);
    let times = |seconds: u64, nanoseconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        FileTimes::new().set_modified(time).set_accessed(time)
    };
    let directory = File::open(root.join("base")).expect("a directory");
    directory
        .set_times(times(1_000_000_000, 123_456_789))
        .expect("times");
    sparse.set_times(times(1, 5)).expect("times");
}

#[test]
fn everything_comes_back() {
    if !needs(&[ROOT, tool("restic")]) {
        return;
    }
    let place = Place::initialised();
    let source = place.beside("source");
    everything(&source);
    let stored = place.asking.backup(tree(&source)).expect("a snapshot");
    assert_eq!((stored.warnings_total, stored.files), (0, 10), "{stored:?}");

    let target = place.beside("target");
    let restored = place
        .asking
        .restore(&stored.snapshot, &target)
        .expect("restored");
    assert_eq!(restored.warnings_total, 0, "{restored:?}");
    assert_eq!(facts(&target), facts(&source));
    let sparse = fs::metadata(target.join("sparse")).expect("metadata");
    assert!(sparse.blocks() * 512 < 1 << 20, "holes are kept");

    // restic reads the same.
    place.restic_checks();
    let target = place.beside("by-restic");
    let path = target.to_str().expect("a path");
    place
        .restic(&["restore", &stored.snapshot, "--target", path], b"")
        .expect("restored");
    assert_eq!(facts(&target.join("data")), facts(&source));
}

#[test]
fn a_second_pass_reads_what_changed() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::initialised();
    let source = place.beside("source");
    for (name, seed) in [("kept", 1), ("changed", 2), ("removed", 3)] {
        fs::write(source.join(name), noise(seed, 100_000)).expect("a file");
        // Of long ago, but for the time of the last change, which nobody can set.
    }
    let draft = Backup {
        draft: true,
        ..tree(&source)
    };
    let first = place.asking.backup(draft).expect("a first pass");
    assert_eq!(first.files_read, 3);
    let list = place.asking.list();
    assert!(list.snapshots[0].draft);

    fs::remove_file(source.join("removed")).expect("removed");
    // Same size, and the same time: only what nobody can set tells.
    let before = fs::metadata(source.join("changed")).expect("metadata");
    fs::write(source.join("changed"), noise(4, 100_000)).expect("a file");
    let file = File::options()
        .write(true)
        .open(source.join("changed"))
        .expect("a file");
    file.set_modified(before.modified().expect("a time"))
        .expect("a time");
    let second = Backup {
        parent: Parent::Snapshot(first.snapshot.clone()),
        forget_parent: true,
        ..tree(&source)
    };
    let second = place.asking.backup(second).expect("a second pass");
    assert_eq!(second.files, 2);

    let list = place.asking.list();
    assert_eq!(list.total, 1, "the first pass is forgotten");
    assert_eq!(list.snapshots[0].id, second.snapshot);
    let target = place.beside("target");
    place
        .asking
        .restore(&second.snapshot, &target)
        .expect("restored");
    assert_eq!(facts(&target), facts(&source));
}

#[test]
fn unchanged_files_are_not_read_again() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::initialised();
    // Files of the system, which nobody changes.
    let source = Path::new("/usr/share/doc/base-files");
    let first = place.asking.backup(tree(source)).expect("a snapshot");
    let second = place.asking.backup(tree(source)).expect("a snapshot");
    assert!(first.files_read > 0 && first.files == second.files);
    assert_eq!(second.files_read, 0);
    let forced = Backup {
        parent: Parent::None,
        ..tree(source)
    };
    let third = place.asking.backup(forced).expect("a snapshot");
    assert_eq!((third.files_read, third.files), (first.files, first.files));
    assert_eq!(place.asking.list().snapshots[0].files, Some(first.files));
}

#[test]
fn an_absent_parent_is_an_error() {
    let place = Place::initialised();
    let source = place.beside("source");
    let backup = Backup {
        parent: Parent::Snapshot("0".repeat(64)),
        ..tree(&source)
    };
    let failure = place.asking.backup(backup).expect_err("no parent");
    assert_eq!(failure.class, Class::SnapshotAbsent, "{failure}");
}

#[test]
fn unreadable_files_are_errors_unless_they_are_skipped() {
    if !needs(&[ROOT]) {
        return;
    }
    let place = Place::initialised();
    let source = place.beside("source");
    fs::write(source.join("file"), b"content").expect("a file");
    // Reading it fails for root, too.
    let mut deep = source.join("deep");
    for _ in 0..3 {
        fs::create_dir(&deep).expect("a directory");
        deep = deep.join("er");
    }
    let mut asking = Place::initialised().asking;
    asking.repository = place.asking.repository.clone();
    asking.limits.depth = 2;
    let failure = asking.backup(tree(&source)).expect_err("too deep");
    assert_eq!(failure.class, Class::Source);
    assert!(failure.message.contains("deep/er"), "{failure}");
    assert_eq!(place.asking.list().total, 0);

    let skipping = Backup {
        skip_unreadable: true,
        ..tree(&source)
    };
    let stored = asking.backup(skipping).expect("a snapshot");
    assert_eq!(stored.warnings_total, 1);
    assert!(stored.warnings[0].contains("deep/er"), "{stored:?}");
}

#[test]
fn a_tree_that_changes_all_the_time_is_stored() {
    if !needs(&[ROOT, tool("restic")]) {
        return;
    }
    let place = Place::initialised();
    let source = place.beside("source");
    let secret = place.beside("secret");
    fs::write(secret.join("file"), b"of the host").expect("a file");
    for directory in 0..20 {
        let directory = source.join(directory.to_string());
        fs::create_dir(&directory).expect("a directory");
        for file in 0..20 {
            fs::write(directory.join(file.to_string()), noise(file, 20_000)).expect("a file");
        }
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let directory = source.join((round % 20).to_string());
                let file = directory.join((round % 17).to_string());
                // Files vanish and shrink, and a directory becomes a link to the host's.
                fs::remove_file(&file).ok();
                fs::write(&file, noise(round, 1000 + (round % 30_000) as usize)).ok();
                File::options()
                    .write(true)
                    .open(&file)
                    .and_then(|file| file.set_len(10))
                    .ok();
                let aside = source.join("aside");
                fs::rename(&directory, &aside).ok();
                symlink(&secret, &directory).ok();
                fs::remove_file(&directory).ok();
                fs::rename(&aside, &directory).ok();
            }
        });
        for _ in 0..5 {
            let stored = place.asking.backup(tree(&source)).expect("a snapshot");
            let target = place.beside(&stored.snapshot);
            place
                .asking
                .restore(&stored.snapshot, &target)
                .expect("restored");
            for (path, fact) in facts(&target) {
                assert!(!fact.contains("of the host"), "{path:?}: {fact}");
                let link = target.join(&path);
                let is_link = fs::symlink_metadata(&link).expect("metadata").is_symlink();
                assert!(
                    is_link || !link.is_dir() || !link.join("file").exists(),
                    "{path:?}"
                );
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    place.restic_checks();
}

#[test]
fn the_snapshot_waits_for_the_commit() {
    let place = Place::initialised();
    let source = place.beside("source");
    fs::write(source.join("file"), b"content").expect("a file");
    let mut running = place.asking.start(Operation::Backup(tree(&source)));
    let ready = running.wait_until_ready();
    assert_eq!((ready.files, ready.snapshot.as_str()), (1, ""));
    assert_eq!(place.asking.list().total, 0);
    running.send(&Frame::Commit);
    let (result, _) = running.finish();
    let Ok(Outcome::BackedUp(stored)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(place.asking.list().snapshots[0].id, stored.snapshot);

    // The caller says that the volume did not stay frozen, vanishes, or says nothing.
    for end in ["abort", "close", "silence"] {
        let mut asking = Place::initialised().asking;
        asking.repository = place.asking.repository.clone();
        asking.limits.commit_seconds = 1.try_into().expect("one");
        let mut running = asking.start(Operation::Backup(tree(&source)));
        running.wait_until_ready();
        match end {
            "abort" => running.send(&Frame::Abort("it was thawed".to_owned())),
            "close" => running.close(),
            _ => {}
        }
        let failure = running.finish().0.expect_err("no snapshot");
        assert_eq!(failure.class, Class::Aborted, "{end}: {failure}");
    }
    assert_eq!(place.asking.list().total, 1);
}

#[test]
fn only_empty_directories_are_targets() {
    let place = Place::initialised();
    let source = place.beside("source");
    fs::write(source.join("file"), b"content").expect("a file");
    let stored = place.asking.backup(tree(&source)).expect("a snapshot");
    let target = place.beside("target");
    fs::write(target.join("write-ahead-log"), b"old").expect("a file");
    let absent = place.directory.path().join("absent");
    let link = place.directory.path().join("link");
    let empty = place.beside("empty");
    symlink(&empty, &link).expect("a link");
    for path in [&target, &absent, &link] {
        let failure = place
            .asking
            .restore(&stored.snapshot, path)
            .expect_err("no target");
        assert_eq!(failure.class, Class::Target, "{path:?}: {failure}");
    }
    assert_eq!(
        fs::read(target.join("write-ahead-log")).expect("a file"),
        b"old"
    );
    assert!(!target.join("file").exists() && !empty.join("file").exists());

    let absent = "f".repeat(64);
    let failure = place
        .asking
        .restore(&absent, &empty)
        .expect_err("no snapshot");
    assert_eq!(failure.class, Class::SnapshotAbsent);
    let failure = place
        .asking
        .restore_stream(&stored.snapshot)
        .expect_err("a tree");
    assert_eq!(failure.class, Class::BadRequest);
    let restore = Restore {
        snapshot: "latest".to_owned(),
        target: Target::Stream,
    };
    let failure = place
        .asking
        .run(Operation::Restore(restore))
        .expect_err("no id");
    assert_eq!(failure.class, Class::BadRequest);
}
