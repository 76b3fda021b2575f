//! Hooks: order, namespaces and failures.

use serde_json::{Value, json};
use tucano_testkit::needs;

use crate::harness::{Case, NEEDS};

/// A hook that checks its state and appends its name to a file of the host.
fn noting(case: &Case, name: &str) -> Value {
    let file = case.path("notes");
    let file = file.display();
    let script = format!(
        "read -r state; case $state in *'\"id\":\"{}\"'*) ;; *) exit 1;; esac; echo {name} >> {file}",
        case.id()
    );
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

#[test]
fn all_six_kinds_run_in_order() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    // This hook sees the container's root file system and writes there.
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "cat > /inside"] }]);
    case.config["hooks"] = json!({
        "prestart": noting(&case, "prestart"),
        "createRuntime": noting(&case, "createRuntime"),
        "createContainer": noting(&case, "createContainer"),
        "startContainer": inside,
        "poststart": noting(&case, "poststart"),
        "poststop": noting(&case, "poststop"),
    });
    let (created, said) = case.create();
    assert!(created, "{said}");
    assert_eq!(
        case.read("notes"),
        "prestart\ncreateRuntime\ncreateContainer\n"
    );
    assert!(!case.path("rootfs/inside").exists());
    case.must(&["start", case.id()]);
    assert!(case.read("rootfs/inside").contains(case.id()));
    case.wait_for_status("stopped");
    case.must(&["delete", case.id()]);
    let order = "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n";
    assert_eq!(case.read("notes"), order);
}

#[test]
fn hooks_receive_the_containers_status() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    let notes = case.path("notes");
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >> {}", notes.display())] }]);
    case.config["hooks"] =
        json!({ "prestart": hook, "createRuntime": hook, "poststart": hook, "poststop": hook });
    assert_eq!(case.run().status.code(), Some(0));
    let told = case.read("notes");
    let states = serde_json::Deserializer::from_str(&told).into_iter::<Value>();
    let statuses: Vec<_> = states
        .map(|state| state.unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, ["created", "creating", "running", "stopped"]);
}

#[test]
fn a_failing_hook_before_start_leaves_no_container() {
    if !needs(&NEEDS) {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut case = Case::new("true");
        case.config["hooks"] = json!({ kind: [{ "path": "/bin/false" }] });
        let (created, said) = case.create();
        assert!(!created);
        assert!(said.contains(kind) && said.contains("/bin/false"), "{said}");
        assert!(case.is_gone());
    }
}

#[test]
fn a_failing_poststop_hook_is_a_warning() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    case.config["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }] });
    let output = case.run();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("level=warning") && said.contains("poststop"),
        "{said}"
    );
    assert!(case.is_gone());
}
