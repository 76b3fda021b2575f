use super::*;

fn rules(wanted: serde_json::Value) -> Result<Vec<Rule>, String> {
    let wanted: Vec<LinuxDeviceCgroup> = serde_json::from_value(wanted).unwrap();
    let mut all = complete(&wanted)?;
    assert_eq!(all.len(), wanted.len() + DEFAULT.len());
    all.truncate(wanted.len());
    Ok(all)
}

#[test]
fn rules_are_written_in_v1s_format() {
    assert_eq!(lines(&DENY_ALL), ["a *:* mrw"]);
    let some = Rule {
        allow: true,
        major: Some(8),
        access: Access(2),
        ..DENY_ALL
    };
    assert_eq!(lines(&some), ["b 8:* r", "c 8:* r"]);
}

#[test]
fn rules_are_parsed_as_specified() {
    let found = rules(serde_json::json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "wr"},
    ]));
    let disks = Rule {
        allow: true,
        kind: Some(Kind::Block),
        major: Some(8),
        minor: None,
        access: Access(6),
    };
    assert_eq!(found.unwrap(), [DENY_ALL, disks]);
    assert!(DENY_ALL.matches_everything() && !disks.matches_everything());
}

#[test]
fn invalid_values_are_refused() {
    for (bad, reason) in [
        (serde_json::json!({"allow": true, "access": "rx"}), "\"rx\""),
        (serde_json::json!({"allow": true, "access": ""}), "\"\""),
        (serde_json::json!({"allow": true, "type": "p"}), "pipe"),
        (serde_json::json!({"allow": true, "major": -2}), "-2"),
        (
            serde_json::json!({"allow": true, "minor": 1_u64 << 32}),
            "4294967296",
        ),
    ] {
        let error = rules(serde_json::json!([bad])).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}
