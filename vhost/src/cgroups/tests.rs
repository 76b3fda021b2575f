use super::*;

const MOUNTS: &str = "\
        30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn the_callers_cgroup_is_found_in_every_hierarchy() {
    let own = "4:memory:/box/me\n2:cpu,cpuacct:/me\n1:name=x:/gone\n0::/user.slice\n";
    let expected = [
        "/sys/fs/cgroup/memory/me",
        "/sys/fs/cgroup/cpu,cpuacct/me",
        "/sys/fs/cgroup/unified/user.slice",
    ];
    assert_eq!(directories(own, MOUNTS), expected.map(PathBuf::from));
}

#[test]
fn a_path_outside_of_the_mount_is_ignored() {
    assert!(directories("4:memory:/other", MOUNTS).is_empty());
}

#[test]
fn only_cgroups_with_the_prefix_are_removed() {
    let parent = tempfile::tempdir().unwrap();
    for name in ["net-w1/process/deeper", "net-w2", "other"] {
        fs::create_dir_all(parent.path().join(name)).unwrap();
    }
    remove_below(
        &[parent.path().to_owned(), "/no/such/parent".into()],
        "net-",
    )
    .unwrap();
    let left: Vec<_> = fs::read_dir(parent.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["other"]);
}
