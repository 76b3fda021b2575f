use super::*;

#[test]
fn options_override_the_file_and_other_limits_stay() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("limits.json");
    std::fs::write(
        &file,
        r#"{"memory":{"limit":1000},"cpu":{"shares":5,"cpus":"0"}}"#,
    )
    .unwrap();
    let wanted = Update {
        file: Some(file),
        fields: vec![("cpu", "shares", 7.into()), ("pids", "limit", 9.into())],
    };
    let new = limits(&wanted).unwrap();
    let mut all: LinuxResources =
        serde_json::from_str(r#"{"memory":{"limit":1,"swap":2},"cpu":{"quota":3}}"#).unwrap();
    merge(&mut all, new);
    let text = serde_json::to_value(&all).unwrap();
    assert_eq!(text["memory"]["limit"], 1000);
    assert_eq!(text["memory"]["swap"], 2);
    assert_eq!(text["cpu"]["shares"], 7);
    assert_eq!(text["cpu"]["quota"], 3);
    assert_eq!(text["pids"]["limit"], 9);
}

#[test]
fn unlimited_memory_is_unlimited_swap_and_swap_alone_keeps_the_memory_limit() {
    let before: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":7}}"#).unwrap();
    for (given, expected) in [
        (r#"{"memory":{"limit":-1}}"#, (Some(-1), Some(-1))),
        (r#"{"memory":{"limit":-1,"swap":9}}"#, (Some(-1), Some(9))),
        (r#"{"memory":{"swap":9}}"#, (Some(7), Some(9))),
        (r#"{"memory":{"swap":-1}}"#, (None, Some(-1))),
        (r#"{"memory":{"limit":5}}"#, (Some(5), None)),
    ] {
        let mut limits = serde_json::from_str(given).unwrap();
        complete_memory(&mut limits, Some(&before));
        let memory = limits.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), expected, "{given}");
    }
}

#[test]
fn an_invalid_limits_file_is_refused() {
    let missing = Update {
        file: Some("/nowhere".into()),
        ..Update::default()
    };
    assert!(
        limits(&missing)
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
    let wrong = Update {
        fields: vec![("pids", "limit", "many".into())],
        ..Update::default()
    };
    assert!(limits(&wrong).is_err());
}
