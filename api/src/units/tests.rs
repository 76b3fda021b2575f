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
