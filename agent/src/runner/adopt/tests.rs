use tucano_api::{
    agent::DesiredProcess,
    ids::{Digest, Revision},
    settings::parse,
    units::Timestamp,
};

use super::*;

fn record() -> Record {
    Record::new(DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: "a-1".parse().unwrap(),
        revision: Revision(1),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        config: parse("a", "name = \"a\"\nconcurrency = 1\nport = 80").unwrap(),
        slot: None,
        volumes: Vec::new(),
        run: None,
    })
}

fn exit(code: Option<i32>, at: u64) -> Exit {
    Exit {
        code,
        signal: None,
        oom_killed: false,
        disk_exceeded: false,
        memory_peak: None,
        at: Timestamp(at),
    }
}

#[test]
fn an_exit_without_an_agent_is_counted_with_its_code() {
    let mut record = Record {
        started_at: Some(Timestamp(10)),
        ..record()
    };
    note_exit(&mut record, exit(Some(3), 20));
    assert_eq!(
        (record.crashes, record.last_exit),
        (1, Some(exit(Some(3), 20)))
    );
}

#[test]
fn a_counted_exit_is_not_counted_again() {
    let mut record = Record {
        started_at: Some(Timestamp(10)),
        crashes: 4,
        last_exit: Some(exit(Some(3), 20)),
        ..record()
    };
    note_exit(&mut record, exit(Some(3), 20));
    // A lost container has neither code nor time: the known exit since the last start is the same one.
    note_exit(&mut record, exit(None, 99));
    assert_eq!(
        (record.crashes, record.last_exit),
        (4, Some(exit(Some(3), 20)))
    );
    record.started_at = Some(Timestamp(30));
    note_exit(&mut record, exit(None, 99));
    assert_eq!(
        (record.crashes, record.last_exit),
        (5, Some(exit(None, 99)))
    );
}

#[test]
fn a_directory_without_a_process_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let stray = root.path().join("stray");
    std::fs::create_dir_all(stray.join("home/upper")).unwrap();
    remove_stray(&stray);
    assert!(!stray.exists());
}
