use std::{
    io::Read,
    process::{Command, Stdio},
};

use super::*;

#[test]
fn each_kind_of_leftover_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let parent = directory.path().join("cgroups");
    fs::create_dir_all(parent.join("net-w1")).unwrap();
    fs::create_dir(&data).unwrap();
    let record = serde_json::json!({ "cgroup_prefix": "net-", "cgroup_parents": [parent] });
    fs::write(data.join("network.json"), record.to_string()).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [taken.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let mut traces = Traces::before(&data, addresses).unwrap();
    traces.note().unwrap();
    let mut child = Command::new("sh");
    child
        .args(["-c", "echo; read x", &data.display().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // Its command line cannot be read before it runs.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    let error = traces.verify_gone().unwrap_err().to_string();
    for left in ["process", "net-w1", "directory", "127.0.0.1"] {
        assert!(error.contains(left), "{left}: {error}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    drop(taken);
    fs::remove_dir_all(&data).unwrap();
    fs::remove_dir(parent.join("net-w1")).unwrap();
    traces.verify_gone().unwrap();
}
