use super::*;

#[test]
fn sizes_read_as_people_write_them() {
    assert_eq!("256MiB".parse(), Ok(Bytes::mib(256)));
    assert_eq!(
        serde_json::from_str::<Bytes>("\"1 GiB\"").unwrap(),
        Bytes(1 << 30)
    );
    assert_eq!(serde_json::from_str::<Bytes>("4096").unwrap(), Bytes(4096));
    assert!(serde_json::from_str::<Bytes>("-1").is_err());
    assert!("lots".parse::<Bytes>().unwrap_err().contains("256MiB"));
}

#[test]
fn durations_keep_their_value_through_json() {
    let span: Span = "1m 30s".parse().unwrap();
    let json = serde_json::to_string(&span).unwrap();
    assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), Span::secs(90));
    assert!(
        serde_json::from_str::<Span>("5")
            .unwrap_err()
            .to_string()
            .contains("unit")
    );
}

#[test]
fn a_timestamp_is_a_date_in_utc() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (1_709_251_199, "2024-02-29 23:59:59 UTC"),
        (1_735_689_600, "2025-01-01 00:00:00 UTC"),
    ] {
        assert_eq!(Timestamp(seconds * 1000).to_string(), text);
    }
    assert!(Timestamp(u64::MAX).to_string().ends_with("UTC"));
}
