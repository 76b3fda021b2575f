use super::*;

fn count(parent: &Path) -> usize {
    fs::read_dir(parent).unwrap().count()
}

#[test]
fn a_directory_is_removed_on_drop_unless_it_is_persisted() {
    let parent = tempfile::tempdir().unwrap();
    drop(Scratch::create(parent.path()).unwrap());
    assert_eq!(count(parent.path()), 0);
    let name = parent.path().join("name");
    assert!(
        Scratch::create(parent.path())
            .unwrap()
            .persist(&name)
            .unwrap()
    );
    assert!(
        !Scratch::create(parent.path())
            .unwrap()
            .persist(&name)
            .unwrap()
    );
    assert!(name.is_dir());
    assert_eq!(count(parent.path()), 1);
    discard(parent.path(), &name).unwrap();
    assert_eq!(count(parent.path()), 0);
}

#[test]
fn sweeping_removes_abandoned_directories_only() {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir_all(parent.path().join(".tmp-abandoned/deep")).unwrap();
    fs::create_dir(parent.path().join("finished")).unwrap();
    let live = Scratch::create(parent.path()).unwrap();
    sweep(parent.path()).unwrap();
    assert!(live.path().is_dir());
    assert!(!parent.path().join(".tmp-abandoned").exists());
    assert_eq!(count(parent.path()), 2);
}
