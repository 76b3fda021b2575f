use super::*;

fn hello() -> ServiceConfig {
    parse(
        "x",
        "name = \"hello\"\nconcurrency = 2\nport = 80\nmemory = \"64MiB\"",
    )
    .unwrap()
}

fn patch(json: &str) -> Result<ServiceConfig, String> {
    patched(&hello(), serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_patch_changes_only_its_keys() {
    let changed = patch(r#"{"concurrency": 5, "hosts": ["a.example"]}"#).unwrap();
    assert_eq!(changed.concurrency, 5);
    assert_eq!(changed.hosts, ["a.example"]);
    assert_eq!(changed.memory, hello().memory);
}

#[test]
fn null_resets_a_key_to_its_default() {
    let changed = patch(r#"{"memory": null, "user": null}"#).unwrap();
    assert_eq!(changed.memory, tucano_api::units::Bytes::mib(256));
    let error = patch(r#"{"concurrency": null}"#).unwrap_err();
    assert!(
        error
            .starts_with("patch: concurrency: 0 processes cannot be kept alive, and a missing key"),
        "{error}"
    );
}

#[test]
fn an_invalid_patch_is_explained() {
    for (json, message) in [
        (
            r#"{"concurency": 5}"#,
            "patch: unknown key \"concurency\": did you mean \"concurrency\"?",
        ),
        (
            r#"{"concurency": null}"#,
            "patch: unknown key \"concurency\": did you mean \"concurrency\"?",
        ),
        (
            r#"{"port": 0}"#,
            "patch: port: 0 is not a port: write the one the program listens on",
        ),
        (
            r#"{"name": "other"}"#,
            "patch: name: a service cannot be renamed: deploy another one and remove this one",
        ),
        (
            r#"{"file": [{"path": "/x", "from": "/etc/shadow"}]}"#,
            "patch: file[0].from: the controller reads no files of yours: send the text as `content`, or deploy with the \
             command line",
        ),
    ] {
        assert_eq!(patch(json).unwrap_err(), message);
    }
}
