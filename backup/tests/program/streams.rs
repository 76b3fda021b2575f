//! Streams: a dump is stored only if it is complete and its producer succeeded.

use tucano_backup::{Class, FRAME_BYTES, Frame, Kind, Operation, Outcome};
use tucano_testkit::{needs, tool};

use crate::support::{Place, noise, stream};

#[test]
fn a_stream_comes_back() {
    if !needs(&[tool("restic")]) {
        return;
    }
    let place = Place::initialised();
    let content = noise(5, 3 << 20);
    let mut running = place.asking.start(Operation::Backup(stream()));
    for piece in content.chunks(FRAME_BYTES) {
        running.send(&Frame::Data(piece.to_vec()));
    }
    running.send(&Frame::Commit);
    let Ok(Outcome::BackedUp(stored)) = running.finish().0 else {
        panic!("no snapshot");
    };
    assert_eq!((stored.files, stored.bytes), (1, content.len() as u64));
    let listed = &place.asking.list().snapshots[0];
    assert_eq!(
        (listed.kind, listed.bytes),
        (Some(Kind::Stream), Some(content.len() as u64))
    );
    assert!(
        place
            .asking
            .restore_stream(&stored.snapshot)
            .expect("restored")
            == content
    );

    place.restic_checks();
    let dumped = place
        .restic(&["dump", &stored.snapshot, "/dump.sql"], b"")
        .expect("dumped");
    assert!(dumped == content);
    // restic restores as many bytes as the snapshot says that the file has.
    let target = place.beside("target");
    let path = target.to_str().expect("a path");
    place
        .restic(&["restore", &stored.snapshot, "--target", path], b"")
        .expect("restored");
    assert!(std::fs::read(target.join("dump.sql")).expect("a file") == content);

    // The same dump again adds next to nothing.
    let again = place.asking.dump(&content).expect("a snapshot");
    assert!(again.added < 10_000, "{again:?}");
}

#[test]
fn an_empty_stream_is_no_snapshot() {
    let place = Place::initialised();
    let failure = place.asking.dump(b"").expect_err("an empty stream");
    assert_eq!(failure.class, Class::Source, "{failure}");
    assert_eq!(place.asking.list().total, 0);
}

#[test]
fn the_stream_of_a_failed_producer_is_no_snapshot() {
    let place = Place::initialised();
    let good = place.asking.dump(b"a good dump").expect("a snapshot");
    let content = noise(6, 1 << 20);
    for end in ["abort", "close", "garbage"] {
        let mut running = place.asking.start(Operation::Backup(stream()));
        running.send(&Frame::Data(content.clone()));
        match end {
            "abort" => running.send(&Frame::Abort("pg_dump ended with 1".to_owned())),
            "close" => running.close(),
            _ => {
                running.send(&Frame::Commit);
                running.send(&Frame::Data(b"more".to_vec()));
            }
        }
        let result = running.finish().0;
        let failure = result.expect_err("no snapshot");
        assert_eq!(failure.class, Class::Aborted, "{end}: {failure}");
        if end == "abort" {
            assert!(
                failure.message.contains("pg_dump ended with 1"),
                "{failure}"
            );
        }
    }
    let list = place.asking.list();
    assert_eq!((list.total, &list.snapshots[0].id), (1, &good.snapshot));
}

#[test]
fn names_of_streams_are_names() {
    let place = Place::initialised();
    for name in ["", "..", "a/b", "nul\0"] {
        let mut backup = stream();
        backup.source = tucano_backup::Source::Stream {
            name: name.to_owned(),
        };
        let failure = place.asking.backup(backup).expect_err("no name");
        assert_eq!(failure.class, Class::BadRequest, "{name:?}: {failure}");
    }
}

#[test]
fn memory_is_bounded() {
    let mut place = Place::new();
    // With the size of packs that is the default.
    place.asking.limits = tucano_backup::Limits::default();
    place.asking.init().expect("a repository");
    let mut running = place.asking.start(Operation::Backup(stream()));
    for seed in 0..32 {
        running.send(&Frame::Data(noise(seed, 1 << 20)));
    }
    running.send(&Frame::Commit);
    let status = format!("/proc/{}/status", running.child.id());
    let mut peak = 0;
    let result = running.finish_with(|| {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = kib.unwrap_or(0).max(peak);
    });
    result.expect("a snapshot");
    assert!((1 << 10..64 << 10).contains(&peak), "{peak} KiB");
}
