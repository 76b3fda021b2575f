use super::*;

#[test]
fn files_are_read_as_written() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir(directory.path());
    assert_eq!(state_dir.read::<u32>("n.json").unwrap(), None);
    for lost in ["", "\0\0"] {
        fs::write(state_dir.path("n.json"), lost).unwrap();
        assert_eq!(state_dir.read::<u32>("n.json").unwrap(), None);
    }
    state_dir.write("n.json", &7).unwrap();
    assert_eq!(state_dir.read::<u32>("n.json").unwrap(), Some(7));
    for (name, value) in [("n.json", 8), ("other.json", 9)] {
        state_dir.write_again(name, &value).unwrap();
        assert_eq!(state_dir.read::<u32>(name).unwrap(), Some(value));
        assert!(!state_dir.path(&format!("{name}.tmp")).exists());
    }
    state_dir.remove("n.json").unwrap();
    state_dir.remove("n.json").unwrap();
}

#[test]
fn an_oversized_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    File::create(directory.path().join("big.json"))
        .unwrap()
        .set_len(FILE_LIMIT_BYTES + 1)
        .unwrap();
    let error = StateDir(directory.path())
        .read::<u32>("big.json")
        .unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn the_reserved_exit_is_valid_json() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir(directory.path());
    let reserved = state_dir.reserve_exit().unwrap();
    state_dir.write_exit(&reserved, &[1, 2]).unwrap();
    assert_eq!(
        state_dir.read::<Vec<u8>>("exit.json").unwrap(),
        Some(vec![1, 2])
    );
}

#[test]
fn only_one_holds_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir(directory.path());
    let held = state_dir.lock().unwrap();
    assert!(held.is_some());
    assert!(state_dir.lock().unwrap().is_none());
    drop(held);
    assert!(state_dir.lock().unwrap().is_some());
}

#[test]
fn a_reused_pid_is_detected() {
    let own = ProcessId::own().unwrap();
    assert!(own.open().unwrap().is_some());
    let earlier = ProcessId {
        start_time: own.start_time - 1,
        ..own
    };
    assert!(earlier.open().unwrap().is_none());
}
