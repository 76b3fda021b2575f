use tucano_planner::{Counters, Record};

use super::{super::sqlite::Database, *};

const LIMIT: u64 = 1 << 30;

fn write(database: &mut Database, last_process: u64) {
    let counters = Counters {
        last_process,
        ..Counters::default()
    };
    database
        .persist(&[Record::Counters(counters)], &[])
        .unwrap();
}

#[test]
fn a_backup_of_a_running_database_is_restored_in_a_new_epoch() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    let backup_file = root.path().join("backup.sqlite3");
    for directory in [&old.join(AUTHORITY), &new] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(old.join(AUTHORITY).join("ca.key"), "secret").unwrap();
    let mut database = Database::open(&old.join(FILE), LIMIT).unwrap();
    write(&mut database, 7);
    backup(&old, &backup_file).unwrap();
    write(&mut database, 8);
    let mode = fs::metadata(&backup_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        backup(&old, &backup_file).is_err(),
        "nothing is overwritten"
    );

    let identity = restore(&new, &backup_file).unwrap();
    let mut restored = Database::open(&new.join(FILE), LIMIT).unwrap();
    let (before, after) = (database.load().unwrap(), restored.load().unwrap());
    assert_eq!(after.counters.last_process, 7);
    assert_eq!(after.identity, identity);
    assert_eq!(after.identity.cluster, before.identity.cluster);
    assert!(after.identity.epoch > before.identity.epoch);
    let key = new.join(AUTHORITY).join("ca.key");
    assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
}

#[test]
fn nothing_is_restored_over_a_database_or_its_write_ahead_log() {
    let root = tempfile::tempdir().unwrap();
    let backup_file = root.path().join("backup.sqlite3");
    drop(Database::open(&root.path().join(FILE), LIMIT).unwrap());
    backup(root.path(), &backup_file).unwrap();
    assert!(restore(root.path(), &backup_file).is_err());
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(format!("{FILE}-wal")), "x").unwrap();
    let message = restore(&other, &backup_file).unwrap_err().to_string();
    assert!(message.contains("-wal"), "{message}");
}

#[test]
fn a_file_that_is_no_backup_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("x");
    fs::write(&file, vec![b'x'; 8192]).unwrap();
    assert!(restore(root.path(), &file).is_err());
    assert!(!root.path().join(FILE).exists());
}
