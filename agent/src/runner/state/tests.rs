use tucano_api::{
    ids::{Digest, Generation, Revision},
    settings::parse,
};

use super::*;

fn process() -> DesiredProcess {
    DesiredProcess {
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
    }
}

#[test]
fn a_second_agent_is_refused_and_a_successor_is_not() {
    let root = tempfile::tempdir().unwrap();
    let first = DataDir::open(root.path()).unwrap();
    let refused = DataDir::open(root.path()).unwrap_err().to_string();
    assert!(refused.contains("another agent already runs"), "{refused}");
    drop(first);
    DataDir::open(root.path()).unwrap();
}

#[test]
fn stored_files_are_read_back() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDir::open(root.path()).unwrap();
    let notes = &mut Vec::new();
    assert!(data.desired(notes).is_none());
    assert_eq!(data.cluster(notes), Cluster::default());
    let set = set();
    data.store_desired(&set).unwrap();
    assert_eq!(data.desired(notes).unwrap(), set);
    let mut cluster = Cluster {
        apis: ["10.0.0.1:7070".parse().unwrap()].into(),
        workers: ["10.0.0.2".parse().unwrap()].into(),
        ..Cluster::default()
    };
    cluster.add_controller([10, 0, 1, 1].into());
    data.store_cluster(&cluster).unwrap();
    assert_eq!(data.cluster(notes), cluster);
    assert!(notes.is_empty());

    let record = Record {
        restarts: 3,
        ..Record::new(process())
    };
    let directory = data.process(&process().id);
    directory.store(&record).unwrap();
    assert_eq!(directory.record().unwrap().unwrap(), record);
    assert_eq!(data.processes().unwrap(), [Ok(process().id)]);
    directory.remove().unwrap();
    assert!(data.processes().unwrap().is_empty());
}

fn set() -> DesiredSet {
    DesiredSet {
        generation: Generation(4),
        processes: vec![process()],
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

/// Every way in which a file may be damaged.
fn damage(path: &Path, kind: &str) {
    remove_if_exists(path).unwrap();
    match kind {
        "cut" => fs::write(path, "{\"node\":").unwrap(),
        "empty" => fs::write(path, "").unwrap(),
        "garbled" => fs::write(path, [0xff; 64]).unwrap(),
        "foreign" => fs::write(path, "{\"a\":1}").unwrap(),
        "huge" => File::create(path).unwrap().set_len(1 << 40).unwrap(),
        "directory" => fs::create_dir_all(path.join("below")).unwrap(),
        "fifo" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "link" => std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
        _ => unreachable!(),
    }
}

/// Kinds of damage to any file.
const DAMAGES: [&str; 7] = [
    "cut",
    "empty",
    "garbled",
    "foreign",
    "huge",
    "directory",
    "fifo",
];

#[test]
fn a_damaged_file_is_set_aside_and_can_be_stored_again() {
    for kind in DAMAGES.into_iter().chain(["link"]) {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        for name in ["desired.json", "apis.json"] {
            damage(&root.path().join(name), kind);
        }
        drop(data);
        // A child that another test has just forked may hold the lock until it executes its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let data = loop {
            match DataDir::open(root.path()) {
                Ok(data) => break data,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        let notes = &mut Vec::new();
        assert!(data.desired(notes).is_none(), "{kind}");
        assert_eq!(data.cluster(notes), Cluster::default(), "{kind}");
        assert!(notes[0].contains("desired.json"), "{kind}: {notes:?}");
        assert!(notes[1].contains("apis.json"), "{kind}: {notes:?}");
        data.store_desired(&set()).unwrap();
        data.store_cluster(&Cluster::default()).unwrap();
        assert!(data.desired(notes).is_some());
        assert!(
            root.path()
                .join("desired.json.damaged")
                .symlink_metadata()
                .is_ok()
        );
        assert_eq!(notes.len(), 2, "{kind}: {notes:?}");
    }
}

#[test]
fn a_damaged_record_of_a_process_is_an_error_that_names_it() {
    for kind in DAMAGES {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        let directory = data.process(&process().id);
        directory.store(&Record::new(process())).unwrap();
        damage(&directory.path().join("process.json"), kind);
        let message = directory.record().unwrap_err().to_string();
        assert!(message.contains("process.json"), "{kind}: {message}");
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn files_with_secrets_are_readable_by_root_only_also_those_of_earlier_agents() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDir::open(root.path()).unwrap();
    data.store_desired(&set()).unwrap();
    let directory = data.process(&process().id);
    directory.store(&Record::new(process())).unwrap();
    let files = [
        root.path().join("desired.json"),
        directory.path().join("process.json"),
    ];
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    for name in ["launch.json", "stdout.log"] {
        fs::write(directory.home().join(name), "secret").unwrap();
    }
    let old = [
        directory.home().join("launch.json"),
        directory.home().join("stdout.log"),
    ];
    for file in files.iter().chain(&old) {
        protect(file, 0o644).unwrap();
    }
    protect(&directory.home(), 0o755).unwrap();
    protect(&data.images(), 0o755).unwrap();
    drop(data);
    let data = DataDir::open(root.path()).unwrap();
    for file in files.iter().chain(&old) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&directory.home()), 0o711);
    assert_eq!(mode(&data.images()), 0o700);
}

#[test]
fn an_entry_whose_name_is_not_an_id_is_listed_by_path() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDir::open(root.path()).unwrap();
    let stray = root.path().join("processes/.stray");
    fs::create_dir(&stray).unwrap();
    assert_eq!(data.processes().unwrap(), [Err(stray)]);
}
