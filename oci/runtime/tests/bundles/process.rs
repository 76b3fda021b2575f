//! What a process is to the kernel: its domain, how it is scheduled, where its memory and its CPUs are, who answers its system
//! calls.

use std::{io::Read, os::unix::net::UnixListener, process::Command};

use serde_json::{Value, json};
use tucano_testkit::{Need, ROOT, needs, tool, wait_until};

use crate::{
    harness::{Case, NEEDS, TIMEOUT},
    streams::received_with,
};

const WITH_CHRT: [Need; 4] = [ROOT, tool("busybox"), tool("chrt"), tool("ionice")];

#[test]
fn personality_applies_to_exec_too() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat /proc/self/personality; sleep 1000");
    case.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    case.start();
    assert_eq!(case.read("out").trim(), "00000008");
    let second = case.must(&["exec", case.id(), "cat", "/proc/self/personality"]);
    assert_eq!(second.trim(), "00000008");
}

#[test]
fn scheduling_and_io_priority_are_set() {
    if !needs(&WITH_CHRT) {
        return;
    }
    let mut case = Case::new("echo up; exec sleep 1000");
    case.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    case.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    case.start();
    let pid = case.read("pid");
    let said = |program: &str| {
        let output = Command::new(program).args(["-p", &pid]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said("chrt").contains("SCHED_BATCH"), "{}", said("chrt"));
    assert_eq!(said("ionice").trim(), "best-effort: prio 6");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The nineteenth field, of which the second is the name in brackets.
    let fields: Vec<_> = stat.split(") ").nth(1).unwrap().split(' ').collect();
    assert_eq!(fields[16], "7", "{stat}");
}

#[test]
fn memory_policy_is_applied() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat /proc/self/numa_maps");
    case.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("bind:0"), "{output:?}");
    case.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"});
    let (created, said) = case.create();
    assert!(!created && said.contains("memoryPolicy"), "{said}");
}

#[test]
fn exec_cpu_affinity_is_applied() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let mut process = case.config["process"].clone();
    process["args"] = json!(["sh", "-c", "cat /proc/self/status"]);
    process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    let file = case.path("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let status = case.must(&["exec", "--process", file.to_str().unwrap(), case.id()]);
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    process["execCPUAffinity"] = json!({"final": "900"});
    std::fs::write(&file, process.to_string()).unwrap();
    let said = case.must_fail(&["exec", "--process", file.to_str().unwrap(), case.id()]);
    assert!(said.contains("execCPUAffinity"), "{said}");
}

/// The result of `mkdir` under a filter, as the shell prints it.
fn answer_of(action: &str, more: Value) -> String {
    let mut case = Case::new("mkdir /made; echo $?");
    let mut call = json!({"names": ["mkdir", "mkdirat"], "action": action});
    for (name, value) in more.as_object().unwrap() {
        call[name] = value.clone();
    }
    case.config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
    let output = case.run();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_action_of_a_filter_is_taken() {
    if !needs(&NEEDS) {
        return;
    }
    let killed_by_sigsys = "159";
    for (action, more, expected) in [
        ("SCMP_ACT_ALLOW", json!({}), "0\n"),
        ("SCMP_ACT_LOG", json!({}), "0\n"),
        ("SCMP_ACT_ERRNO", json!({"errnoRet": 28}), "No space left"),
        ("SCMP_ACT_TRACE", json!({}), "not implemented"),
        ("SCMP_ACT_KILL_PROCESS", json!({}), killed_by_sigsys),
        ("SCMP_ACT_KILL_THREAD", json!({}), killed_by_sigsys),
        ("SCMP_ACT_TRAP", json!({}), killed_by_sigsys),
    ] {
        let said = answer_of(action, more);
        assert!(said.contains(expected), "{action}: {said}");
    }
}

#[test]
fn rules_with_arguments_are_applied() {
    if !needs(&NEEDS) {
        return;
    }
    // The second argument of mkdir is the mode.
    for (operator, value, two, refused) in [
        ("SCMP_CMP_EQ", 0o777, 0, true),
        ("SCMP_CMP_NE", 0o777, 0, false),
        ("SCMP_CMP_LT", 0o777, 0, false),
        ("SCMP_CMP_LE", 0o777, 0, true),
        ("SCMP_CMP_GE", 0o777, 0, true),
        ("SCMP_CMP_GT", 0o777, 0, false),
        ("SCMP_CMP_MASKED_EQ", 0o700, 0o700, true),
        ("SCMP_CMP_MASKED_EQ", 0o700, 0o500, false),
    ] {
        let argument = json!({"index": 1, "value": value, "valueTwo": two, "op": operator});
        let rule = json!({"names": ["mkdir"], "args": [argument], "errnoRet": 28});
        let said = answer_of("SCMP_ACT_ERRNO", rule);
        assert_eq!(
            said.contains("No space left"),
            refused,
            "{operator} {value:o}: {said}"
        );
    }
}

#[test]
fn a_filter_need_not_allow_its_own_installation() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("mkdir /made");
    // One filter for rules with arguments and one for rules without.
    case.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["seccomp"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
            "args": [{"index": 1, "value": 0o777, "op": "SCMP_CMP_EQ"}]},
        {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
            "args": [{"index": 2, "value": 0o777, "op": "SCMP_CMP_EQ"}]},
    ]});
    let output = case.run();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("No space left"), "{output:?}");
}

#[test]
fn a_seccomp_agent_receives_listeners_of_create_and_exec() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("mkdir /made 2>&1; echo up; sleep 1000");
    let path = case.path("agent");
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "cell",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    // Nobody can answer.
    let (created, said) = case.create();
    assert!(!created && said.contains("agent"), "{said}");
    assert!(case.is_gone());
    let agent = UnixListener::bind(&path).unwrap();
    // An agent may wait for its descriptor before it lets the container be started.
    let first = std::thread::scope(|scope| {
        let told = scope.spawn(|| told(&agent));
        let (created, said) = case.create();
        assert!(created, "{said}");
        told.join().unwrap()
    });
    assert_eq!(first["state"]["status"], "creating");
    assert_eq!(case.state()["status"], "created");
    case.must(&["start", case.id()]);
    assert_eq!(first["pid"].to_string(), case.read("pid"));
    assert_eq!(first["metadata"], "cell");
    assert_eq!(first["fds"], json!(["seccompFd"]));
    assert_eq!(first["state"]["id"], case.id());
    // Without a listener the kernel returns ENOSYS.
    wait_until("the answer", TIMEOUT, || {
        case.read("out").contains("not implemented")
    });
    let said = std::thread::scope(|scope| {
        let told = scope.spawn(|| told(&agent));
        let said = case.tucano(&["exec", case.id(), "mkdir", "/other"]);
        assert_ne!(told.join().unwrap()["pid"].to_string(), case.read("pid"));
        said
    });
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("not implemented"),
        "{said:?}"
    );
}

/// The state that comes with a descriptor; the descriptor is closed.
fn told(agent: &UnixListener) -> Value {
    let (descriptor, mut text, mut connection) = received_with(agent);
    let link = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&descriptor)
    );
    let link = std::fs::read_link(link).unwrap();
    assert!(link.to_str().unwrap().contains("seccomp"), "{link:?}");
    connection.read_to_end(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}
