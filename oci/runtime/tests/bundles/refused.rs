//! Unsupported and invalid configurations are refused as a whole.

use std::path::Path;

use serde_json::json;
use tucano_testkit::needs;

use crate::harness::{Case, NEEDS};

/// The error of a container that cannot be created; nothing remains.
fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut case = Case::new("true");
    change(&mut case.config);
    let (created, said) = case.create();
    assert!(!created);
    assert!(case.is_gone(), "{said}");
    said
}

#[test]
fn an_invalid_configuration_leaves_nothing_behind() {
    if !needs(&NEEDS) {
        return;
    }
    let rdt = refusal(|config| config["linux"]["intelRdt"] = json!({"closID": "cell"}));
    assert!(rdt.contains("linux.intelRdt is not supported"), "{rdt}");
    let mount = refusal(|config| {
        let mount = json!({"destination": "/x", "type": "nosuchfs", "source": "x"});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert!(mount.contains("nosuchfs"), "{mount}");
    let user = refusal(|config| config["process"]["cwd"] = "relative".into());
    assert!(user.contains("process.cwd"), "{user}");
    let pids = refusal(|config| {
        config["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "uts"}]);
    });
    assert!(pids.contains("mount namespace"), "{pids}");
    let sysctl = refusal(|config| config["linux"]["sysctl"] = json!({"kernel.panic": "1"}));
    assert!(sysctl.contains("kernel.panic"), "{sysctl}");
    let cgroup = refusal(|config| config["linux"]["cgroupsPath"] = "../../x".into());
    assert!(cgroup.contains(".."), "{cgroup}");
}

/// On hosts without AppArmor and SELinux, and on hosts whose policy does not know these names.
#[test]
fn unsupported_profiles_and_labels_are_refused() {
    if !needs(&NEEDS) {
        return;
    }
    let place = |section: &'static str, field: &'static str| {
        let said = refusal(|config| config[section][field] = "no-such-cell".into());
        assert!(said.contains("no-such-cell"), "{said}");
        said
    };
    let profile = place("process", "apparmorProfile");
    assert!(profile.contains("AppArmor"), "{profile}");
    let label = place("process", "selinuxLabel");
    assert!(label.contains("SELinux"), "{label}");
    place("linux", "mountLabel");
}

#[test]
fn an_unconfined_process_runs_without_apparmor() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("exec sleep 1000");
    for field in ["apparmorProfile", "selinuxLabel"] {
        case.config["process"][field] = "".into();
    }
    case.config["process"]["apparmorProfile"] = "unconfined".into();
    case.create();
    case.must(&["start", case.id()]);
    case.must(&["exec", "--apparmor", "unconfined", case.id(), "true"]);
    let exec = ["exec", "--apparmor", "no-such-cell", case.id(), "true"];
    let said = case.must_fail(&exec);
    assert!(said.contains("no-such-cell"), "{said}");
}

#[test]
fn a_missing_program_is_an_error() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("");
    case.config["process"]["args"] = json!(["/no/such/program"]);
    let (created, said) = case.create();
    assert!(
        !created && said.contains("executable file not found"),
        "{said}"
    );
    assert!(case.is_gone());
    let run = case.run();
    assert_eq!(run.status.code(), Some(1));
    assert!(case.is_gone());
}

#[test]
fn options_that_cannot_be_granted_are_refused() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("true");
    let bundle = case.path("");
    let bundle = bundle.to_str().unwrap();
    // With systemd, the path is not one of its own form.
    let systemd = if Path::new("/run/systemd/private").exists() {
        "slice:prefix:name"
    } else {
        "needs systemd, which does not answer here (/run/systemd/private: "
    };
    case.config["linux"]["cgroupsPath"] = "/a/b".into();
    case.write();
    for (options, reason) in [
        (
            &["--systemd-cgroup", "run", "-b", bundle, case.id()][..],
            systemd,
        ),
        (
            &["run", "--preserve-fds", "40", "-b", bundle, case.id()],
            "is not open",
        ),
    ] {
        let said = case.must_fail(options);
        assert!(said.contains(reason), "{said}");
        assert!(case.is_gone());
    }
}

#[test]
fn errors_are_written_to_the_log_as_json_too() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("true");
    let log = case.path("log");
    case.must_fail(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "state",
        "nobody",
    ]);
    let entry: serde_json::Value = serde_json::from_str(&case.read("log")).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("does not exist"));
}

/// Other runtimes take them, too.
#[test]
fn unusual_but_valid_configurations_run() {
    if !needs(&NEEDS) {
        return;
    }
    let runs = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut case = Case::new("echo up");
        change(&mut case.config);
        let output = case.run();
        assert_eq!(output.stdout, b"up\n", "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    runs(&|config| drop(config["process"].as_object_mut().unwrap().remove("user")));
    let said = runs(&|config| {
        config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_FLY"]});
    });
    assert!(
        said.contains("level=warning") && said.contains("CAP_FLY"),
        "{said}"
    );
    for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
        runs(&|config| config["linux"]["memoryPolicy"] = json!({"mode": mode}));
    }
    let flags = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    runs(&|config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "flags": flags});
    });
}
