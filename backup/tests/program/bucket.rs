//! Repositories in buckets.

use std::fs;

use tucano_backup::{Class, List, Operation, Secret};
use tucano_testkit::{ROOT, needs};

use crate::{
    storage::{Fault, Server},
    support::{facts, noise, tree},
};

#[test]
fn a_bucket_has_a_repository() {
    if !needs(&[ROOT]) {
        return;
    }
    let server = Server::new();
    assert!(server.asking.init().expect("a repository").created);
    assert!(!server.asking.init().expect("it is there").created);
    let directory = tempfile::tempdir().expect("a directory");
    let [source, target] = ["source", "target"].map(|name| directory.path().join(name));
    fs::create_dir(&source).expect("a directory");
    fs::create_dir(&target).expect("a directory");
    crate::trees::everything(&source);
    let stored = server.asking.backup(tree(&source)).expect("a snapshot");
    server
        .asking
        .restore(&stored.snapshot, &target)
        .expect("restored");
    assert_eq!(facts(&target), facts(&source));
    let content = noise(8, 3 << 20);
    let dump = server.asking.dump(&content).expect("a snapshot");
    assert!(
        server
            .asking
            .restore_stream(&dump.snapshot)
            .expect("restored")
            == content
    );
    let forgotten = server.asking.forget(crate::support::VOLUME, 1);
    assert_eq!(forgotten.forgotten, [stored.snapshot]);
    assert!(forgotten.pruned.is_some());
    assert_eq!(server.asking.list().snapshots[0].id, dump.snapshot);
    let locks = server.root.path().join("backups/cluster/locks");
    assert_eq!(fs::read_dir(locks).map_or(0, Iterator::count), 0);
}

#[test]
fn a_storage_that_fails_gets_no_second_repository() {
    let server = Server::new();
    let first = server.asking.init().expect("a repository");
    let keys = server.root.path().join("backups/cluster/keys");
    let config = server.root.path().join("backups/cluster/config");
    let content = fs::read(&config).expect("a configuration");
    let faults = [
        ("config", Fault::Absent, Class::Occupied),
        ("config", Fault::Fails, Class::Unreachable),
        ("config", Fault::Denies, Class::Unreachable),
        // Everything is absent, lists included: the bucket itself is.
        ("", Fault::Absent, Class::Unreachable),
        ("", Fault::Fails, Class::Unreachable),
        ("", Fault::Denies, Class::Unreachable),
    ];
    for (suffix, fault, class) in faults {
        server.fail(Some((suffix, fault)));
        let failure = server.asking.init().expect_err("it fails");
        assert_eq!(failure.class, class, "{suffix:?}, {fault:?}: {failure}");
        let failure = server.asking.dump(b"a dump").expect_err("it fails");
        assert_eq!(failure.class, class, "{suffix:?}, {fault:?}: {failure}");
        assert!(
            failure.message.contains("s3://backups/cluster"),
            "{failure}"
        );
    }
    server.fail(None);
    assert_eq!(server.asking.init().expect("it is there").id, first.id);
    assert_eq!(fs::read(&config).expect("a configuration"), content);
    assert_eq!(fs::read_dir(keys).expect("keys").count(), 1);
}

#[test]
fn a_storage_that_hangs_is_given_up() {
    let mut server = Server::new();
    server.asking.init().expect("a repository");
    server.asking.limits.request_seconds = 1.try_into().expect("one");
    server.asking.limits.retries = 0;
    server.fail(Some(("config", Fault::Hangs)));
    let failure = server.asking.init().expect_err("it hangs");
    assert_eq!(failure.class, Class::Unreachable, "{failure}");
}

#[test]
fn a_dump_that_cannot_be_stored_is_no_snapshot() {
    let server = Server::new();
    server.asking.init().expect("a repository");
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("file"), noise(3, 100_000)).expect("a file");
    // Data is refused when it is written: the name of every sixteenth file or so ends with such a digit.
    for suffix in [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f",
    ] {
        server.fail(Some((suffix, Fault::Denies)));
        if let Err(failure) = server.asking.backup(tree(directory.path())) {
            assert_eq!(failure.class, Class::Unreachable, "{failure}");
        }
    }
    server.fail(None);
    for snapshot in server.asking.list().snapshots {
        let target = tempfile::tempdir().expect("a directory");
        server
            .asking
            .restore(&snapshot.id, target.path())
            .expect("restored");
        assert_eq!(facts(target.path()).len(), 2);
    }
}

#[test]
fn a_wrong_key_is_told_without_it() {
    let mut server = Server::new();
    let s3 = server.asking.repository.s3.as_mut().expect("a server");
    s3.secret_access_key = Some(Secret::new("a wrong access key"));
    let failure = server
        .asking
        .run(Operation::List(List::default()))
        .expect_err("it is wrong");
    assert_eq!(failure.class, Class::Unreachable, "{failure}");
    assert!(!failure.message.contains("wrong access"), "{failure}");
}
