use super::*;

fn record(cgroup: &str) -> String {
    serde_json::json!({
        "boot_id": "x",
        "supervisor": { "pid": 1, "start_time": 1 },
        "container": null,
        "cgroup": { "directories": [["", cgroup]] },
        "user": null,
    })
    .to_string()
}

#[test]
fn only_an_intact_record_of_the_same_container_names_its_cgroup() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("supervisor.json");
    let own = |content: &str| {
        std::fs::write(&path, content).unwrap();
        recorded_cgroup(directory.path(), "a-1").is_some()
    };
    assert!(own(&record("/sys/fs/cgroup/tucano/a-1")));
    for content in [
        "",
        "{",
        "[]",
        &record("/sys/fs/cgroup/tucano/a-12"),
        &record("/sys/fs/cgroup/tucano/b-1"),
        &record("/sys/fs/cgroup"),
    ] {
        assert!(!own(content), "{content}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(recorded_cgroup(directory.path(), "a-1").is_none());
}
