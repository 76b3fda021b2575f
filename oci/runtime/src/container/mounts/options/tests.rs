use super::*;

fn parsed(kind: &str, options: &[&str]) -> Options {
    let mount = serde_json::json!({ "destination": "/x", "type": kind, "options": options });
    Options::parse(&serde_json::from_value(mount).unwrap())
}

#[test]
fn options_are_sorted_into_attributes_and_data() {
    let options = parsed(
        "tmpfs",
        &["nosuid", "ro", "rprivate", "mode=1777", "newinstance"],
    );
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY;
    assert_eq!(options.own, AttributeChange { set, clear: 0 });
    let expected = [
        ("mode".to_owned(), Some("1777".to_owned())),
        ("newinstance".to_owned(), None),
    ];
    assert_eq!(options.data, expected);
    let private = Propagation {
        kind: libc::MS_PRIVATE,
        recursive: true,
    };
    assert_eq!(options.propagation, Some(private));
    assert!(!options.bind);
}

#[test]
fn the_later_of_two_options_counts() {
    let options = parsed("none", &["bind", "ro", "nodev", "rw", "suid"]);
    let set = libc::MOUNT_ATTR_NODEV;
    let clear = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    assert_eq!(options.own, AttributeChange { set, clear });
}

#[test]
fn access_time_modes_exclude_each_other() {
    let mode = |options: &[&str]| parsed("none", options).own;
    let clear = libc::MOUNT_ATTR__ATIME;
    let strict = libc::MOUNT_ATTR_STRICTATIME;
    assert_eq!(
        mode(&["noatime", "strictatime"]),
        AttributeChange { set: strict, clear }
    );
    assert_eq!(
        mode(&["strictatime", "relatime"]),
        AttributeChange { set: 0, clear }
    );
    assert_eq!(
        mode(&["noatime", "atime"]),
        AttributeChange { set: 0, clear }
    );
}

#[test]
fn recursive_options_are_parsed() {
    let options = parsed("bind", &["rro", "rsuid", "nodev", "ridmap", "rshared"]);
    assert_eq!(options.all.set, libc::MOUNT_ATTR_RDONLY);
    assert_eq!(options.all.clear, libc::MOUNT_ATTR_NOSUID);
    assert_eq!(options.own.set, libc::MOUNT_ATTR_NODEV);
    assert_eq!(options.id_map, Some(true));
    assert!(options.needs_peers() && options.data.is_empty());
    // `relatime` and `rw` begin with an r of their own.
    let plain = parsed("bind", &["relatime", "rw"]);
    assert!(plain.all.is_empty() && plain.data.is_empty());
}

#[test]
fn no_advertised_option_is_passed_to_the_file_system() {
    for name in names() {
        assert_eq!(parsed("bind", &[&name]).data, [], "{name}");
    }
}
