use serde_json::json;

use super::*;

fn spec(namespaces: &[&str], devices: serde_json::Value) -> Spec {
    let namespaces: Vec<_> = namespaces
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    serde_json::from_value(json!({
        "ociVersion": "1.3.0",
        "linux": { "namespaces": namespaces, "netDevices": devices },
    }))
    .unwrap()
}

#[test]
fn devices_have_a_name_of_their_own_or_keep_theirs() {
    let spec = spec(
        &["network"],
        json!({ "eth1": { "name": "eth0" }, "eth0": {}, "eth2": { "name": "" } }),
    );
    let device = |name: &str, new_name: &str| Device {
        name: name.to_owned(),
        new_name: new_name.to_owned(),
    };
    assert_eq!(
        devices(&spec),
        [
            device("eth0", "eth0"),
            device("eth1", "eth0"),
            device("eth2", "eth2")
        ]
    );
    assert!(check(&spec).unwrap_err().contains("two devices"));
}

#[test]
fn a_network_of_its_own_and_plain_names_are_required() {
    check(&spec(&["mount"], json!({}))).unwrap();
    check(&spec(&["network"], json!({ "eth1": { "name": "eth0" } }))).unwrap();
    for (namespaces, devices, reason) in [
        (
            &["mount"] as &[&str],
            json!({ "a": {} }),
            "needs a network namespace",
        ),
        (&["network", "user"], json!({ "a": {} }), "user namespace"),
        (&["network"], json!({ "": {} }), "not the name"),
        (
            &["network"],
            json!({ "a": { "name": "sixteen-bytes-ab" } }),
            "not the name",
        ),
        (
            &["network"],
            json!({ "a": { "name": "eth%d" } }),
            "not the name",
        ),
        (
            &["network"],
            json!({ "a": { "name": "a b" } }),
            "not the name",
        ),
        (
            &["network"],
            json!({ "a": { "name": ".." } }),
            "not the name",
        ),
        (&["network"], json!({ "../a": {} }), "not the name"),
    ] {
        let refused = check(&spec(namespaces, devices)).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}
