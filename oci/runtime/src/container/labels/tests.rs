use super::*;

const NEVER: fn() -> bool = || unreachable!("nothing depends on the host");

#[test]
fn without_labels_the_host_is_not_inspected() {
    assert_eq!(profile("", NEVER), Ok(None));
    assert_eq!(label("x", "", NEVER), Ok(None));
}

#[test]
fn a_profile_is_applied_or_refused_by_its_name() {
    let applied = |name: &str, active| profile(name, move || active);
    let exec = |name: &str| Ok(Some(format!("exec {name}")));
    assert_eq!(applied("docker-default", true), exec("docker-default"));
    // The starter itself may be confined.
    assert_eq!(applied(UNCONFINED, true), exec(UNCONFINED));
    assert_eq!(applied(UNCONFINED, false), Ok(None));
    let refused = applied("docker-default", false).unwrap_err();
    assert!(refused.contains("apparmorProfile") && refused.contains("docker-default"));
    assert!(applied("a\0b", true).is_err(), "the kernel would read `a`");
}

#[test]
fn a_label_is_applied_or_refused_by_its_name() {
    let text = "system_u:system_r:container_t:s0:c1,c2";
    let applied = |text: &str, active| label("linux.mountLabel", text, move || active);
    assert_eq!(applied(text, true), Ok(Some(text.to_owned())));
    let refused = applied(text, false).unwrap_err();
    assert!(refused.contains("linux.mountLabel") && refused.contains(text));
    assert!(applied("a\0b", true).is_err());
}

#[test]
fn an_exec_inherits_the_containers_labels() {
    let own = RequestedLabels {
        profile: "a",
        label: "",
    };
    let container = RequestedLabels {
        profile: "b",
        label: "l",
    };
    let both = own.or(container);
    assert_eq!((both.profile, both.label), ("a", "l"));
}

#[test]
fn file_systems_with_their_own_labels_get_no_option() {
    let none: [&str; 0] = [];
    assert_eq!(option("l", "tmpfs", none), Some(("context", Some("l"))));
    assert_eq!(option("", "tmpfs", none), None);
    assert_eq!(option("l", "proc", none), None);
    assert_eq!(option("l", "mqueue", none), None);
    assert_eq!(option("l", "tmpfs", ["size", "rootcontext"]), None);
}
