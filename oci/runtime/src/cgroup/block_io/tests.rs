use super::*;

fn section() -> LinuxBlockIo {
    serde_json::from_value(serde_json::json!({
            "weight": 500,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 600}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}, {"major": 9, "minor": 1, "rate": 8}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 300}],
        }))
        .unwrap()
}

fn lines(v2: bool) -> Vec<Line> {
    let io = section();
    throttles(&io)
        .iter()
        .flat_map(|throttle| {
            throttle
                .devices
                .unwrap()
                .iter()
                .map(|device| throttle.line(device, v2))
        })
        .collect()
}

#[test]
fn each_device_is_a_line() {
    let words: Vec<_> = lines(true)
        .into_iter()
        .map(|(file, line)| format!("{file} {line}"))
        .collect();
    assert_eq!(
        words,
        [
            "io.max 8:16 rbps=600",
            "io.max 8:0 wbps=max",
            "io.max 8:0 riops=7",
            "io.max 9:1 riops=8",
            "io.max 8:0 wiops=300"
        ]
    );
    let v1 = lines(false);
    assert_eq!(
        v1[0],
        ("blkio.throttle.read_bps_device", "8:16 600".to_owned())
    );
    assert_eq!(
        v1[1],
        ("blkio.throttle.write_bps_device", "8:0 0".to_owned())
    );
    assert_eq!(
        v1[3],
        ("blkio.throttle.read_iops_device", "9:1 8".to_owned())
    );
}

#[test]
fn weights_use_the_files_and_scale_of_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let error = weights(&section(), directory.path()).unwrap_err();
    assert!(error.to_string().contains("io.weight"), "{error}");
    assert!(
        weights(&LinuxBlockIo::default(), directory.path())
            .unwrap()
            .is_empty()
    );
    fs::write(directory.path().join("io.weight"), "").unwrap();
    let own = weights(&section(), directory.path()).unwrap();
    assert_eq!(
        own,
        [
            ("io.weight", "4950".to_owned()),
            ("io.weight", "8:0 1".to_owned())
        ]
    );
    fs::write(directory.path().join("blkio.weight"), "").unwrap();
    let v1 = weights(&section(), directory.path()).unwrap();
    assert_eq!(
        v1,
        [
            ("blkio.weight", "500".to_owned()),
            ("blkio.weight_device", "8:0 10".to_owned())
        ]
    );
    assert_eq!(
        (scale(10), scale(1000), scale(u16::MAX)),
        (1, 10_000, 10_000)
    );
}
