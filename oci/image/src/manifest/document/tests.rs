use super::*;
use oci_spec::image::ImageIndex;

#[test]
fn a_duplicate_key_is_refused() {
    let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    let error = parse::<ImageIndex>("index.json", twice).unwrap_err();
    assert_eq!(error.code(), "malformed");
    assert!(error.to_string().contains("duplicate field"), "{error}");
    for deep in [
        r#"{"a":[{"b":{"c":1,"c":2}}]}"#,
        r#"{"Labels":{"x":"1","y":null,"\u0078":"2"}}"#,
    ] {
        let error = parse::<serde_json::Value>("it", deep.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }
    let fine = br#"{"a":[{"b":1.5,"c":-1,"d":true},{"b":null}],"b":"x"}"#;
    assert!(parse::<serde_json::Value>("it", fine).is_ok());
}

#[test]
fn the_size_of_a_document_is_limited() {
    let limits = Limits {
        document_bytes: 10,
        ..Limits::default()
    };
    assert!(check_size("it", 10, &limits).is_ok());
    assert_eq!(
        check_size("it", 11, &limits).unwrap_err().code(),
        "too_large"
    );
}
