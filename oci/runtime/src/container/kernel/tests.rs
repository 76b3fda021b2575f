use super::*;

fn spec() -> Spec {
    let text = r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"ipc"},{"type":"uts"}]}}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let own = network_inode().unwrap();
    for name in [
        "kernel.panic",
        "vm.swappiness",
        "fs.file-max",
        "kernel.sem/../../vm.x",
        "net.core.somaxconn",
    ] {
        assert!(check(&spec(), name, own).is_err(), "{name}");
    }
    check(&spec(), "kernel.sem", own).unwrap();
    check(&spec(), "fs.mqueue.msg_max", own).unwrap();
    check(&spec(), "net.core.somaxconn", own + 1).unwrap();
}

#[test]
fn a_refused_oom_score_does_not_fail_the_start() {
    let process: Process =
        serde_json::from_str(r#"{"cwd":"/","user":{"uid":0,"gid":0},"args":["x"]}"#).unwrap();
    set_oom_score(&process).unwrap();
}
