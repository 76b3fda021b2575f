use super::*;

fn from(text: &str, unified: bool) -> Vec<String> {
    let limits: LinuxResources = serde_json::from_str(text).unwrap();
    let all = of(Some(&limits), unified);
    all.iter()
        .map(|(name, value)| match value {
            Value::Number(INFINITY) => format!("{name}=infinity"),
            Value::Number(number) => format!("{name}={number}"),
            Value::Bytes(bytes) => format!("{name}={bytes:?}"),
            other => format!("{name}={other:?}"),
        })
        .collect()
}

#[test]
fn limits_are_converted_to_systemd_properties() {
    let text = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500},"pids":{"limit":7},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-2,9"}}"#;
    let v2 = [
        "MemoryMax=1000",
        "MemoryLow=500",
        "MemorySwapMax=500",
        "CPUWeight=39",
        "CPUQuotaPeriodUSec=100000",
        "CPUQuotaPerSecUSec=500000",
        "AllowedCPUs=[7, 2]",
        "TasksMax=7",
    ];
    assert_eq!(from(text, true), v2);
    let v1 = [
        "MemoryLimit=1000",
        "CPUShares=1024",
        "CPUQuotaPeriodUSec=100000",
        "CPUQuotaPerSecUSec=500000",
        "TasksMax=7",
    ];
    assert_eq!(from(text, false), v1);
}

#[test]
fn unlimited_is_infinity_and_absent_limits_are_omitted() {
    let text = r#"{"memory":{"limit":-1,"swap":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
    let told = [
        "MemoryMax=infinity",
        "MemorySwapMax=infinity",
        "CPUQuotaPerSecUSec=infinity",
        "TasksMax=infinity",
    ];
    assert_eq!(from(text, true), told);
    let zeros = r#"{"memory":{"limit":0,"swap":0},"cpu":{"quota":0,"shares":0,"cpus":""},"pids":{"limit":0}}"#;
    assert!(from(zeros, true).is_empty());
    assert!(of(None, true).is_empty());
    // A quota is never less than requested.
    assert_eq!(
        from(r#"{"cpu":{"quota":12345}}"#, true),
        ["CPUQuotaPerSecUSec=130000"]
    );
}

#[test]
fn known_entries_of_the_unified_map_become_properties() {
    let text = r#"{"unified":{"memory.high":"4096"}}"#;
    assert_eq!(from(text, true), ["MemoryHigh=4096"]);
    let text = r#"{"unified":{"pids.max":"max"}}"#;
    assert_eq!(from(text, true), ["TasksMax=infinity"]);
    assert!(from(r#"{"unified":{"io.max":"8:0 rbps=1"}}"#, true).is_empty());
    assert!(from(r#"{"cpu":{"cpus":"0-99999999"}}"#, true).is_empty());
}
