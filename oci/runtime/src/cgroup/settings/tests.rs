use super::*;

fn of(text: &str, unified: bool) -> Result<Vec<String>, String> {
    let resources = serde_json::from_str(text).unwrap();
    let all = settings(&resources, unified)?;
    Ok(all
        .iter()
        .map(|setting| format!("{}={}", setting.file, setting.value))
        .collect())
}

const BOTH: &str = r#"{"cpu":{"cpus":"0-1","mems":"0","idle":1,"burst":500},
        "hugepageLimits":[{"pageSize":"2MB","limit":4096}],
        "rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":9}}}"#;

#[test]
fn both_versions_have_their_files() {
    let v1 = [
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
        "cpu.idle=1",
        "hugetlb.2MB.limit_in_bytes=4096",
        "rdma.max=mlx5_0 hca_handle=3 hca_object=9",
    ];
    assert_eq!(of(BOTH, false).unwrap(), v1);
    let v2 = of(BOTH, true).unwrap();
    assert!(v2.contains(&"hugetlb.2MB.max=4096".to_owned()), "{v2:?}");
    let resources = serde_json::from_str(BOTH).unwrap();
    assert_eq!(controllers(Some(&resources)), ["cpuset", "hugetlb", "rdma"]);
}

#[test]
fn v1_only_limits_are_refused_on_v2() {
    for (text, file) in [
        (r#"{"network":{"classID":7}}"#, "net_cls.classid=7"),
        (
            r#"{"network":{"priorities":[{"name":"lo","priority":2}]}}"#,
            "net_prio.ifpriomap=lo 2",
        ),
        (r#"{"memory":{"swappiness":60}}"#, "memory.swappiness=60"),
        (
            r#"{"memory":{"disableOOMKiller":true}}"#,
            "memory.oom_control=1",
        ),
        (
            r#"{"cpu":{"realtimeRuntime":9500}}"#,
            "cpu.rt_runtime_us=9500",
        ),
    ] {
        assert_eq!(of(text, false).unwrap(), [file]);
        assert!(of(text, true).unwrap_err().contains("v1 only"), "{text}");
    }
    let kernel = of(r#"{"memory":{"kernel":4096}}"#, false).unwrap_err();
    assert!(kernel.contains("memory.kernel"), "{kernel}");
}

#[test]
fn the_unified_map_writes_files_of_controllers_only() {
    let map = |name: &str| format!(r#"{{"unified":{{"{name}":"1"}}}}"#);
    assert_eq!(of(&map("memory.high"), true).unwrap(), ["memory.high=1"]);
    assert!(of(&map("memory.high"), false).is_err());
    for bad in ["cgroup.procs", "memory/../x", "x.y", "memory"] {
        assert!(of(&map(bad), true).is_err(), "{bad}");
    }
}

#[test]
fn a_new_cpuset_inherits_from_its_parent() {
    let top = tempfile::tempdir().unwrap();
    let below = top.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    for (place, value) in [("", "0-3\n"), ("a", "\n"), ("a/b", "\n")] {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(top.path().join(place).join(name), value).unwrap();
        }
    }
    inherit_cpuset(&below).unwrap();
    let read = |place: &str| fs::read_to_string(top.path().join(place)).unwrap();
    assert_eq!(read("a/b/cpuset.cpus"), "0-3");
    assert_eq!(read("a/cpuset.mems"), "0-3");
}
