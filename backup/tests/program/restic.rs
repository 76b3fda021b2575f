//! What restic writes is restored, and its locks hold.

use std::fs;

use tucano_backup::{Class, Frame, Operation, Outcome, Unlock};
use tucano_testkit::{ROOT, needs, tool};

use crate::support::{Place, facts, noise, stream, tree};

#[test]
fn what_restic_wrote_is_restored() {
    if !needs(&[ROOT, tool("restic")]) {
        return;
    }
    let place = Place::new();
    place.restic(&["init"], b"").expect("a repository");
    assert!(!place.asking.init().expect("it is there").created);
    let source = place.beside("source");
    crate::trees::everything(&source);
    let path = source.to_str().expect("a path");
    place.restic(&["backup", path], b"").expect("a snapshot");
    let content = noise(9, 3 << 20);
    let arguments = ["backup", "--stdin", "--stdin-filename", "dump"];
    place.restic(&arguments, &content).expect("a snapshot");

    let list = place.asking.list();
    assert_eq!((list.total, list.snapshots[0].kind), (2, None));
    let stream = place
        .asking
        .restore_stream(&list.snapshots[0].id)
        .expect("restored");
    assert!(stream == content);
    let target = place.beside("target");
    place
        .asking
        .restore(&list.snapshots[1].id, &target)
        .expect("restored");
    assert_eq!(facts(&target), facts(&source));
    // Both work in one repository.
    place.asking.dump(b"a dump of ours").expect("a snapshot");
    place.restic_checks();
}

#[test]
fn restic_prunes_nothing_that_a_backup_is_storing() {
    if !needs(&[tool("restic")]) {
        return;
    }
    let place = Place::initialised();
    let mut running = place.asking.start(Operation::Backup(stream()));
    running.send(&Frame::Data(noise(1, 100_000)));
    running.send(&Frame::Commit);
    let Ok(Outcome::BackedUp(_)) = running.finish().0 else {
        panic!("no snapshot");
    };
    let source = place.beside("source");
    fs::write(source.join("file"), noise(2, 100_000)).expect("a file");
    let mut running = place.asking.start(Operation::Backup(tree(&source)));
    running.wait_until_ready();
    let error = place.restic(&["prune"], b"").expect_err("it is locked");
    assert!(error.contains("locked"), "{error}");
    // Our own pruning waits, too; the next one makes up for it.
    let forgotten = place.asking.forget("another", 1);
    assert!(forgotten.pruned.is_none());
    let reason = forgotten.put_off.expect("a reason");
    assert!(reason.contains(&running.child.id().to_string()), "{reason}");
    // Another backup works beside it.
    place.asking.dump(b"a dump").expect("a snapshot");
    running.send(&Frame::Commit);
    running.finish().0.expect("a snapshot");
    assert!(place.asking.forget("another", 1).pruned.is_some());
    place.restic(&["prune"], b"").expect("pruned");
    place.restic_checks();
}

#[test]
fn a_killed_run_breaks_nothing() {
    if !needs(&[tool("restic")]) {
        return;
    }
    let place = Place::initialised();
    let good = place.asking.dump(b"a good dump").expect("a snapshot");
    let packs = || {
        let mut count = 0;
        for directory in fs::read_dir(place.path().join("data")).expect("a directory") {
            let directory = directory.expect("an entry").path();
            count += fs::read_dir(directory).expect("a directory").count();
        }
        count
    };
    let locks = || {
        let locks = fs::read_dir(place.path().join("locks"));
        locks.expect("a directory").count()
    };
    for round in 0..3 {
        let before = packs();
        let mut running = place.asking.start(Operation::Backup(stream()));
        // Until some data is there: how much is on its way before depends on threads.
        for piece in 0..64 {
            running.send(&Frame::Data(noise(100 * round + piece, 1 << 20)));
            if packs() > before {
                break;
            }
        }
        assert!(packs() > before);
        if round == 2 {
            running.send(&Frame::Commit);
            running.wait_until_ready();
        }
        running.kill();
        assert!(locks() > 0, "it left its lock");
        if round == 1 {
            // The locks of the dead stop nobody, and restic would mind them.
            let forgotten = place.asking.forget("another", 1);
            assert!(forgotten.pruned.is_some(), "{forgotten:?}");
            assert_eq!(locks(), 0);
            place.restic_checks();
        }
    }
    let Ok(Outcome::Unlocked(unlocked)) = place.asking.run(Operation::Unlock(Unlock {})) else {
        panic!("not unlocked");
    };
    assert_eq!((unlocked.removed, unlocked.left), (1, 0));
    assert_eq!(locks(), 0);
    let content = noise(100, 1 << 20);
    let next = place.asking.dump(&content).expect("a snapshot");
    assert!(
        place
            .asking
            .restore_stream(&next.snapshot)
            .expect("restored")
            == content
    );
    assert_eq!(
        place
            .asking
            .restore_stream(&good.snapshot)
            .expect("restored"),
        b"a good dump"
    );
    place.restic_checks();
}

#[test]
fn a_lost_piece_is_an_error() {
    let place = Place::initialised();
    let stored = place.asking.dump(&noise(3, 100_000)).expect("a snapshot");
    for directory in fs::read_dir(place.path().join("data")).expect("a directory") {
        for pack in fs::read_dir(directory.expect("an entry").path()).expect("a directory") {
            let path = pack.expect("an entry").path();
            let mut content = fs::read(&path).expect("a pack");
            content[50] ^= 1;
            fs::write(&path, content).expect("a pack");
        }
    }
    let failure = place
        .asking
        .restore_stream(&stored.snapshot)
        .expect_err("damage");
    assert_eq!(failure.class, Class::Damaged, "{failure}");
    let check = tucano_backup::Check { read_data: true };
    let Ok(Outcome::Checked(checked)) = place.asking.run(Operation::Check(check)) else {
        panic!("not checked");
    };
    assert!(checked.errors_total > 0 && !checked.errors.is_empty());
}
