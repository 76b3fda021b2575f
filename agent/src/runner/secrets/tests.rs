use super::*;

#[test]
fn an_answer_has_exactly_one_value() {
    assert_eq!(value_in(br#"{"values":["eA=="]}"#), Some(b"x".to_vec()));
    for wrong in [
        r#"{"values":[]}"#,
        r#"{"values":["eA==","eA=="]}"#,
        r#"{"values":["%"]}"#,
        "{}",
        "<html>",
    ] {
        assert_eq!(value_in(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_name_and_a_version_are_one_file() {
    let secret = SecretVersion {
        name: "db-password".parse().unwrap(),
        version: 7,
    };
    assert_eq!(file_name(&secret), "db-password@7");
}
