//! Hooks, in their order and where they belong.

use serde_json::{Value, json};
use tucano_testkit::needs;

use crate::harness::{Case, NEEDS};

/// One that notes its name, the state's status, and whether it sees the host.
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
fn all_six_are_run_in_their_order() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    // The container's own root file system is what this one sees: it notes its run there.
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
fn each_is_told_what_the_container_does() {
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
fn one_that_fails_before_the_start_leaves_no_container() {
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
fn one_that_fails_at_the_end_is_only_told() {
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
