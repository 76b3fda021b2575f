use tucano_api::{
    agent::VolumeInstance,
    ids::{Generation, ProcessId},
    state::{AlertKind, NodeCondition},
    units::Timestamp,
};
use tucano_planner::{Counters, NodeRecord, ProcessRecord, VolumeRecord};

use super::*;

const LIMIT: u64 = 1 << 30;

fn node(name: &str, generation: u64) -> Record {
    Record::Node(NodeRecord {
        name: name.parse().unwrap(),
        generation: Generation(generation),
        condition: NodeCondition::Alive,
        since: Timestamp(1),
        reason: None,
        restart_attempts: 0,
        sent: None,
        epoch: Default::default(),
        adopts: None,
        hold: None,
    })
}

fn process(number: u64) -> Record {
    let service = "hello".parse().unwrap();
    Record::Process(ProcessRecord {
        id: ProcessId::new(&service, number),
        service,
        revision: tucano_api::ids::Revision(1),
        node: "w1".parse().unwrap(),
        slot: None,
        replaces: None,
        draining_since: None,
        crashes: Default::default(),
        run: None,
        devices: Vec::new(),
    })
}

#[test]
fn persisted_records_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    let counters = Counters {
        last_process: 7,
        ..Counters::default()
    };
    database
        .persist(
            &[
                node("w1", 3),
                process(1),
                process(2),
                Record::Counters(counters.clone()),
            ],
            &[],
        )
        .unwrap();
    database
        .persist(
            &[
                node("w1", 4),
                Record::ProcessGone("hello-1".parse().unwrap()),
            ],
            &[],
        )
        .unwrap();
    drop(database);
    let snapshot = Database::open(&path, LIMIT).unwrap().load().unwrap();
    assert_eq!(snapshot.nodes[0].generation, Generation(4));
    assert_eq!(snapshot.processes.len(), 1);
    assert_eq!(snapshot.processes[0].id.as_str(), "hello-2");
    assert_eq!(snapshot.counters, counters);
}

fn volume(instance: u64, confirmed: bool) -> VolumeRecord {
    VolumeRecord {
        volume: VolumeInstance {
            id: "db/data/1".parse().unwrap(),
            instance,
        },
        node: "w1".parse().unwrap(),
        size: tucano_api::units::Bytes::mib(64),
        confirmed,
        removing: false,
        away_since: None,
        problem: None,
        alerted: false,
        fill: None,
        load: None,
    }
}

#[test]
fn volumes_are_kept_by_their_instance() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    let records = [volume(1, true), volume(2, false)].map(Record::Volume);
    database.persist(&records, &[]).unwrap();
    let confirmed = Record::Volume(volume(2, true));
    database.persist(&[confirmed], &[]).unwrap();
    drop(database);
    let mut database = Database::open(&path, LIMIT).unwrap();
    let volumes = database.load().unwrap().volumes;
    assert_eq!(volumes, [volume(1, true), volume(2, true)]);
    let gone = Record::VolumeGone(volume(1, true).volume);
    database.persist(&[gone], &[]).unwrap();
    assert_eq!(database.load().unwrap().volumes, [volume(2, true)]);
}

/// As the version before volumes has written it, with its records.
#[test]
fn a_database_of_the_version_before_volumes_is_usable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    drop(Database::open(&path, LIMIT).unwrap());
    let connection = Connection::open(&path).unwrap();
    let process = r#"{"id":"hello-1","service":"hello","revision":1,"node":"w1"}"#;
    let counters = r#"{"last_process":7,"last_placed_on":"w1","first_generation":3}"#;
    connection
        .execute_batch(&format!(
            "DROP TABLE volumes;
             INSERT INTO processes VALUES ('hello-1', '{process}');
             INSERT INTO counters VALUES ('cluster', '{counters}');"
        ))
        .unwrap();
    drop(connection);
    let mut database = Database::open(&path, LIMIT).unwrap();
    let snapshot = database.load().unwrap();
    assert_eq!(snapshot.processes[0].slot, None);
    assert_eq!(snapshot.counters.last_process, 7);
    assert_eq!(snapshot.counters.last_volume, 0);
    assert!(snapshot.volumes.is_empty());
    let record = Record::Volume(volume(1, false));
    database.persist(&[record], &[]).unwrap();
    assert_eq!(database.load().unwrap().volumes.len(), 1);
}

fn alert(subject: &str) -> Alert {
    Alert {
        kind: AlertKind::NodeDead,
        subject: subject.into(),
        message: "it is".into(),
        at: Timestamp(1),
    }
}

#[test]
fn alerts_are_stored_until_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    let ids = database
        .persist(&[node("w1", 3)], &[alert("w1"), alert("w2"), alert("w3")])
        .unwrap();
    database.forget_alert(ids[1]).unwrap();
    database.forget_alert(ids[1]).unwrap();
    assert_eq!(pragma(&database, SYNC), "Integer(2)");
    drop(database);
    let mut database = Database::open(&path, LIMIT).unwrap();
    let kept = database.alerts().unwrap();
    let subjects: Vec<_> = kept
        .iter()
        .map(|kept| kept.alert.subject.as_str())
        .collect();
    assert_eq!(subjects, ["w1", "w3"]);
    assert_eq!(kept[1].id, Some(ids[2]));
    // Ids are not reused: a late removal must not hit another alert.
    for kept in kept {
        database.forget_alert(kept.id.unwrap()).unwrap();
    }
    let next = database.persist(&[], &[alert("w4")]).unwrap();
    assert!(!ids.contains(&next[0]));
}

#[test]
fn databases_of_versions_without_alerts_and_with_unknown_alerts_are_usable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    database.persist(&[node("w1", 3)], &[]).unwrap();
    database
        .connection
        .execute_batch("DROP TABLE alerts")
        .unwrap();
    drop(database);
    let mut database = Database::open(&path, LIMIT).unwrap();
    assert_eq!(database.load().unwrap().nodes[0].generation, Generation(3));
    database.persist(&[], &[alert("w1")]).unwrap();
    let unknown = "INSERT INTO alerts (alert) VALUES ('{\"kind\":\"news\"}')";
    database.connection.execute(unknown, []).unwrap();
    database.persist(&[], &[alert("w2")]).unwrap();
    assert_eq!(database.alerts().unwrap().len(), 2);
}

#[test]
fn a_full_database_refuses_a_transaction_entirely_and_stays_usable() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::open(&directory.path().join("state.sqlite3"), 64 << 10).unwrap();
    database.persist(&[node("w1", 1)], &[]).unwrap();
    let many: Vec<Record> = (0..5000).map(process).collect();
    let error = database.persist(&many, &[]).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert!(error.to_string().contains("free some space"));
    assert!(database.load().unwrap().processes.is_empty());
    database.persist(&[node("w1", 2)], &[]).unwrap();
    assert_eq!(database.load().unwrap().nodes[0].generation, Generation(2));
}

#[test]
fn a_database_of_a_newer_version_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    drop(Database::open(&path, LIMIT).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Database::open(&path, LIMIT).unwrap_err().to_string();
    assert!(
        error.contains("schema 99") && error.contains("knows 1"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_a_database_and_a_corrupt_record_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, vec![b'x'; 8192]).unwrap();
    let error = Database::open(&garbage, LIMIT).unwrap_err().to_string();
    assert!(error.contains("garbage"), "{error}");

    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    let broken = "INSERT INTO nodes VALUES ('w1', '{}')";
    database.connection.execute(broken, []).unwrap();
    let error = database.load().unwrap_err().to_string();
    assert!(error.contains("\"w1\" of table nodes"), "{error}");
}

/// A directory with a database of some changes, all in the write-ahead log, as kill -9 leaves it.
fn killed() -> (tempfile::TempDir, PathBuf) {
    let (running, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = running.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    for generation in 1..20 {
        database.persist(&[node("w1", generation)], &[]).unwrap();
    }
    for file in ["state.sqlite3", "state.sqlite3-wal", "state.mark"] {
        std::fs::copy(running.path().join(file), killed.path().join(file)).unwrap();
    }
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let copy = killed.path().join("state.sqlite3");
    let copy = std::fs::File::options().write(true).open(copy).unwrap();
    copy.set_modified(written).unwrap();
    let path = killed.path().join("state.sqlite3");
    (killed, path)
}

#[test]
fn a_database_of_a_killed_controller_is_whole() {
    let (_directory, path) = killed();
    let snapshot = Database::open(&path, LIMIT).unwrap().load().unwrap();
    assert_eq!(snapshot.nodes[0].generation, Generation(19));
}

#[test]
fn a_removed_truncated_or_garbled_file_is_refused() {
    let wal = |path: &Path| path.with_file_name("state.sqlite3-wal");
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 5] = [
        ("log removed", &|path| {
            std::fs::remove_file(wal(path)).unwrap()
        }),
        ("log truncated", &|path| {
            std::fs::write(wal(path), "").unwrap()
        }),
        ("database truncated", &|path| {
            std::fs::write(path, "").unwrap();
            std::fs::remove_file(wal(path)).unwrap();
        }),
        ("database removed", &|path| {
            std::fs::remove_file(path).unwrap()
        }),
        ("log garbled", &|path| {
            let mut bytes = std::fs::read(wal(path)).unwrap();
            let middle = bytes.len() / 2;
            for byte in &mut bytes[middle..middle + 20] {
                *byte ^= 1;
            }
            std::fs::write(wal(path), bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (_directory, path) = killed();
        damage(&path);
        let error = Database::open(&path, LIMIT).unwrap_err().to_string();
        assert!(error.contains("state.sqlite3"), "{what}: {error}");
    }
}

#[test]
fn a_database_that_was_moved_away_whole_begins_anew() {
    let (_directory, path) = killed();
    let before = Database::open(&path, LIMIT)
        .unwrap()
        .load()
        .unwrap()
        .identity;
    for file in ["state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm"] {
        drop(std::fs::remove_file(path.with_file_name(file)));
    }
    let after = Database::open(&path, LIMIT).unwrap().load().unwrap();
    assert_ne!(after.identity.cluster, before.cluster);
    assert!(after.nodes.is_empty());
}

#[test]
fn a_checkpoint_empties_the_write_ahead_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    database.persist(&[node("w1", 1)], &[]).unwrap();
    database.checkpoint();
    let log = std::fs::metadata(directory.path().join("state.sqlite3-wal")).unwrap();
    assert_eq!(log.len(), 0);
}

#[test]
fn commits_are_synced() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("s"), LIMIT).unwrap();
    assert_eq!(pragma(&database, "journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma(&database, SYNC), "Integer(2)");
}

fn pragma(database: &Database, name: &str) -> String {
    let value = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
    let found = database
        .connection
        .pragma_query_value(None, name, value)
        .unwrap();
    format!("{found:?}")
}

/// A database of the version before has no table of runs, and one of its records has no key of them.
#[test]
fn jobs_and_runs_are_kept_also_in_databases_of_earlier_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    database.persist(&[process(1)], &[]).unwrap();
    let tables = "DROP TABLE jobs; DROP TABLE runs;";
    database.connection.execute_batch(tables).unwrap();
    drop(database);
    let mut database = Database::open(&path, LIMIT).unwrap();
    let before = database.load().unwrap();
    assert_eq!((before.processes[0].run, before.runs.len()), (None, 0));
    let job = tucano_planner::JobRecord {
        last_run: 3,
        claimed: Some(Timestamp(7)),
        ..tucano_planner::JobRecord::new("nightly".parse().unwrap())
    };
    let run: tucano_api::jobs::Run = serde_json::from_value(serde_json::json!({
        "service": "nightly", "number": 3, "revision": 1, "trigger": { "kind": "request" }, "completions": 1,
        "parallelism": 1, "retries": 0, "created_at": 1, "epoch": 1, "result": "failed", "ended_at": 9,
        "attempts": [{
            "process": "nightly-4", "task": 1, "node": "w1", "placed_at": 2, "ended_at": 8,
            "end": "exited", "exit": { "code": 3, "at": 7 }, "last_lines": ["no"],
        }],
    }))
    .unwrap();
    assert_eq!((run.code(), run.state()), (3, "failed"));
    let records = [Record::Job(job.clone()), Record::Run(Box::new(run.clone()))];
    database.persist(&records, &[]).unwrap();
    drop(database);
    let mut database = Database::open(&path, LIMIT).unwrap();
    let after = database.load().unwrap();
    assert_eq!((after.jobs, after.runs), (vec![job], vec![run]));
    let gone = Record::RunGone {
        service: "nightly".parse().unwrap(),
        number: 3,
    };
    database
        .persist(&[Record::JobGone("nightly".parse().unwrap()), gone], &[])
        .unwrap();
    let last = database.load().unwrap();
    assert!(last.jobs.is_empty() && last.runs.is_empty());
}

#[test]
fn a_service_of_an_earlier_version_has_no_address_yet_and_keeps_the_one_that_it_gets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sqlite3");
    let mut database = Database::open(&path, LIMIT).unwrap();
    let record = serde_json::json!({
        "name": "hello", "compatible_from": 1,
        "revisions": [{
            "revision": 1, "configured_at": 1, "image": format!("sha256:{}", "0".repeat(64)),
            "config": { "name": "hello", "concurrency": 1, "port": 8080, "stop_timeout": "10s" },
        }],
    });
    let insert = "INSERT INTO services (key, record) VALUES ('hello', ?1)";
    let text = record.to_string();
    database.connection.execute(insert, params![text]).unwrap();
    let mut service = database.load().unwrap().services.pop().unwrap();
    assert_eq!((service.address, service.awaits_start), (None, false));
    service.address = Some([100, 80, 0, 7].into());
    service.slot_addresses = [(2, [100, 80, 0, 8].into())].into();
    let stored = Record::Service(Box::new(service.clone()));
    let counters = Counters {
        last_address: Some([100, 80, 0, 8].into()),
        ..Counters::default()
    };
    let records = [stored, Record::Counters(counters.clone())];
    database.persist(&records, &[]).unwrap();
    drop(database);
    let loaded = Database::open(&path, LIMIT).unwrap().load().unwrap();
    assert_eq!(loaded.services, [service]);
    assert_eq!(loaded.counters, counters);
}
