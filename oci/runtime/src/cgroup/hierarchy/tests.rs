use super::*;

fn mounts(text: &str) -> Vec<MountInfo> {
    cgroup_mounts(text).unwrap()
}

fn memberships(text: &str) -> Vec<ProcessCGroup> {
    ProcessCGroups::from_read(text.as_bytes()).unwrap().0
}

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 /box /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

#[test]
fn each_v1_hierarchy_has_its_own_place() {
    let own = memberships("8:pids:/box/in\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n");
    let found = locate(&mounts(HYBRID), &own, Base::Own, &[], &|_| true, &|_| true).unwrap();
    let of = |name: &str| found.iter().find(|(other, _)| other == name).unwrap();
    assert_eq!(of("memory").1, Path::new("/sys/fs/cgroup/memory/a/b"));
    assert_eq!(of("pids").1, Path::new("/sys/fs/cgroup/pids/in"));
    assert_eq!(of("cpu").1, of("cpuacct").1);
    assert_eq!(of("unified").1, Path::new("/sys/fs/cgroup/unified"));
    assert!(found.iter().all(|(name, _)| !name.is_empty()));
}

#[test]
fn absolute_paths_begin_at_the_mounts() {
    let base = Base::of_path("/x");
    let exists = |path: &Path| !path.ends_with("cpu,cpuacct");
    let found = locate(&mounts(HYBRID), &[], base, &[], &exists, &|_| true).unwrap();
    let places: Vec<_> = found
        .iter()
        .map(|(_, path)| path.to_str().unwrap())
        .collect();
    let v1 = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
    assert_eq!(places[..2], v1);
    assert_eq!(places[2..], ["/sys/fs/cgroup/unified"]);
    assert_eq!(Base::of_path("x/y"), Base::Own);
}

#[test]
fn a_cgroup_that_no_mount_shows_is_an_error() {
    let own = memberships("8:pids:/other\n4:memory:/../x\n");
    let error = locate(&mounts(HYBRID), &own, Base::Own, &[], &|_| true, &|_| true).unwrap_err();
    assert!(error.to_string().contains("own cgroup"), "{error}");
}

#[test]
fn the_leaf_is_not_the_own_cgroup() {
    let unified = mounts("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    for (own, expected) in [
        ("0::/s/tucano.service\n", "/sys/fs/cgroup/s/tucano.service"),
        (
            "0::/s/tucano.service/agent.scope\n",
            "/sys/fs/cgroup/s/tucano.service",
        ),
    ] {
        let found = locate(
            &unified,
            &memberships(own),
            Base::Own,
            &[],
            &|_| true,
            &|_| true,
        )
        .unwrap();
        assert_eq!(found, [(String::new(), PathBuf::from(expected))]);
    }
}

#[test]
fn a_hybrid_hosts_v2_hierarchy_must_be_writable() {
    let found = |writable: bool| {
        let own = memberships("8:pids:/box\n4:memory:/\n0::/a\n");
        locate(&mounts(HYBRID), &own, Base::Own, &[], &|_| true, &|_| {
            writable
        })
        .unwrap()
    };
    let place = PathBuf::from("/sys/fs/cgroup/unified/a");
    assert!(found(true).contains(&("unified".to_owned(), place)));
    assert!(found(false).iter().all(|(name, _)| name != "unified"));
}
