use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn each_port_has_a_directory_of_its_own() {
    assert_eq!(default(None, 7070), Path::new("/var/lib/tucano/dev-7070"));
    assert_eq!(
        default(Some("/state".into()), 7071),
        Path::new("/state/tucano/dev-7071")
    );
    assert_eq!(
        default(Some("relative".into()), 1),
        Path::new("/var/lib/tucano/dev-1")
    );
}

#[test]
fn the_token_is_new_each_time_and_readable_by_root_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Directory::open(Some(&parent.path().join("data")), 1).unwrap();
    let path = directory.write_agent_token().unwrap();
    let first = fs::read_to_string(&path).unwrap();
    assert_eq!(first.len(), 64);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    directory.write_agent_token().unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), first);
}

#[test]
fn a_named_directory_is_kept_and_a_default_one_removed() {
    let parent = tempfile::tempdir().unwrap();
    for kept in [true, false] {
        let path = parent.path().join("x").join("data");
        let directory = Directory {
            path: path.clone(),
            kept,
        };
        fs::create_dir_all(path.join("hosts/w1")).unwrap();
        directory.prepare().unwrap();
        assert_eq!(path.join("hosts/w1").exists(), kept);
        directory.remove().unwrap();
        assert_eq!(path.exists(), kept);
    }
}
