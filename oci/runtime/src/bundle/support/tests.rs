use super::*;

/// Checks a small valid configuration with one field replaced.
fn checked(pointer: &str, value: Value) -> Result<(), String> {
    let mut config = serde_json::json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "resources": {}},
    });
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[name] = value;
    let text = config.to_string();
    check(&serde_json::from_str(&text).unwrap(), text.as_bytes())
}

#[test]
fn unsupported_fields_are_refused_unless_empty() {
    checked(
        "/linux/resources",
        serde_json::json!({"blockIO": {"weight": 0}}),
    )
    .unwrap();
    let error = checked("/linux/intelRdt", serde_json::json!({"closID": "cell"})).unwrap_err();
    assert!(error.contains("linux.intelRdt"), "{error}");
    let leaf = serde_json::json!({"blockIO": {"leafWeight": 10}});
    let error = checked("/linux/resources", leaf).unwrap_err();
    assert!(error.contains("blockIO.leafWeight"), "{error}");
    checked("/windows", serde_json::json!({"layerFolders": []})).unwrap();
}

#[test]
fn contradictions_are_refused() {
    let twice = serde_json::json!([{"type": "pid"}, {"type": "pid"}]);
    assert!(
        checked("/linux/namespaces", twice)
            .unwrap_err()
            .contains("twice")
    );
    let mapped = serde_json::json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    assert!(checked("/linux/uidMappings", mapped).is_err());
    assert!(
        checked("/hostname", "cell".into())
            .unwrap_err()
            .contains("uts")
    );
    assert!(checked("/ociVersion", "2.0.0".into()).is_err());
    assert!(checked("/process/cwd", "here".into()).is_err());
    assert!(checked("/process/args", serde_json::json!([])).is_err());
    assert!(checked("/linux/rootfsPropagation", "open".into()).is_err());
    let offsets = serde_json::json!({"monotonic": {"secs": 1}});
    assert!(
        checked("/linux/timeOffsets", offsets)
            .unwrap_err()
            .contains("time namespace")
    );
    let relative = serde_json::json!([{"type": "mount"}, {"type": "pid", "path": "ns/pid"}]);
    assert!(
        checked("/linux/namespaces", relative)
            .unwrap_err()
            .contains("not absolute")
    );
    for hook in [
        serde_json::json!({"path": "relative"}),
        serde_json::json!({"path": "/x", "timeout": 0}),
        serde_json::json!({"path": "/x", "env": ["nothing"]}),
    ] {
        let error = checked("/hooks", serde_json::json!({"poststop": [hook]})).unwrap_err();
        assert!(error.contains("hook"), "{error}");
    }
    let metadata = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"});
    assert!(
        checked("/linux/seccomp", metadata)
            .unwrap_err()
            .contains("listenerPath")
    );
    let priority = serde_json::json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    assert!(
        checked("/process/ioPriority", priority)
            .unwrap_err()
            .contains("0 to 7")
    );
    let domain = serde_json::json!({"domain": "LINUX", "flags": ["ODD"]});
    assert!(
        checked("/linux/personality", domain)
            .unwrap_err()
            .contains("ODD")
    );
    let limit = serde_json::json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    assert!(checked("/process/rlimits", serde_json::json!([limit, limit])).is_err());
}

#[test]
fn mount_options_that_would_be_ignored_are_refused() {
    let mount = |options: &[&str]| {
        let mount = serde_json::json!([{
            "destination": "/x", "source": "/", "type": "bind", "options": options
        }]);
        checked("/mounts", mount)
    };
    mount(&["rbind", "ro", "rshared", "nosuid", "rro", "suid"]).unwrap();
    for option in ["idmap", "tmpcopyup", "copy-symlink"] {
        let error = mount(&["rbind", option]).unwrap_err();
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn mappings_of_a_mount_come_in_pairs() {
    let mapping = serde_json::json!([{"containerID": 0, "hostID": 9, "size": 1}]);
    let mount = |fields: &str| {
        let mut mount = serde_json::json!({"destination": "/x", "source": "/", "type": "bind"});
        for field in fields.split(' ') {
            mount[field] = mapping.clone();
        }
        checked("/mounts", serde_json::json!([mount]))
    };
    mount("uidMappings gidMappings").unwrap();
    assert!(mount("uidMappings").unwrap_err().contains("both"));
}
