use super::*;

fn spec(namespaces: &str) -> Spec {
    let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}}}}}"#);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_container_without_mounts_of_its_own_is_refused() {
    assert!(clone_flags(&spec(r#"[{"type":"pid"}]"#)).is_err());
    assert!(clone_flags(&spec("[]")).is_err());
    let joined = r#"[{"type":"mount"},{"type":"network","path":"/x"}]"#;
    let flags = clone_flags(&spec(joined)).unwrap();
    assert_eq!(flags, CloneFlags::CLONE_NEWNS);
}

#[test]
fn namespaces_are_opened_by_path_and_a_missing_one_is_an_error() {
    let own = r#"[{"type":"network","path":"/proc/self/ns/net"},{"type":"pid","path":"/proc/self/ns/pid"}]"#;
    let joined = Joined::open(&spec(own)).unwrap();
    assert_eq!(joined.others.len(), 1);
    assert!(joined.pid.is_some() && joined.cgroup.is_none());
    let missing = r#"[{"type":"mount","path":"/nowhere"}]"#;
    let failure = Joined::open(&spec(missing)).unwrap_err();
    assert!(failure.step.contains("/nowhere"), "{failure}");
}

#[test]
fn offsets_are_written_as_the_kernel_reads_them() {
    let offset = serde_json::from_str(r#"{"secs":-5,"nanosecs":7}"#).unwrap();
    assert_eq!(line("boottime", &offset), "boottime -5 7\n");
    assert_eq!(
        line("monotonic", &LinuxTimeOffset::default()),
        "monotonic 0 0\n"
    );
}
