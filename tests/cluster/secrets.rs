//! Secrets through a whole cluster: the command line, the controller, the agents over TLS, and containers.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tucano_api::ids::Revision;
use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options};

use crate::exec::{Shell, TOOLS, with_a_shell};

const FIRST: &str = "first-pa$1wor$D-canary";
const SECOND: &str = "second-pa$1wor$D-canary";
const HELLO: &str = "name = \"hello\"\nconcurrency = 3\nport = 8080\nmemory = \"64MiB\"\n\
    [[secret]]\nname = \"password\"\n\
    [[secret]]\nname = \"password\"\nenv = \"PASSWORD\"\n";

fn set(shell: &Shell, value: &str) -> String {
    let mut child = shell
        .tucano(&["secret", "set", "password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(value.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that every process has this value, as a file and as a variable.
fn check(shell: &Shell, value: &str) {
    let processes = shell.0.wait_for_healthy("hello", 3);
    for process in processes {
        let script = "busybox cat /run/secrets/password; echo \"|$PASSWORD\"";
        let said = shell.exec(process.report.id.as_str(), script, b"");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said, format!("{value}|{value}\n"));
    }
}

/// Files below a directory, on its file system, that have one of these texts.
fn files_with(directory: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let device = fs::metadata(directory).unwrap().dev();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let is_here = fs::symlink_metadata(&path).is_ok_and(|it| it.dev() == device);
        if kind.is_dir() && is_here {
            found.extend(files_with(&path, texts));
        } else if kind.is_file()
            && let Ok(content) = fs::read(&path)
        {
            let has = |text: &&str| content.windows(text.len()).any(|it| it == text.as_bytes());
            found.extend(texts.iter().any(has).then_some(path));
        }
    }
    found
}

/// Environment and arguments of the programs of a worker which are not of a container.
fn of_programs(cluster: &Cluster, index: usize) -> String {
    let running = cluster.running_on(index).into_iter();
    let programs = running.filter(|it| it.arguments.contains("tucano_"));
    let read = |pid: i32, file: &str| {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    };
    programs
        .map(|it| {
            let pid = it.pid.as_raw_nonzero().get();
            read(pid, "environ") + &read(pid, "cmdline")
        })
        .collect()
}

#[test]
fn a_new_value_rolls_its_users_under_load_and_is_nowhere_else() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let mut shell = Shell(Cluster::start(&Options::default()));
    let archive = with_a_shell(&shell.0);
    let refused = shell.0.deploy(HELLO, &archive, "");
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(
        refused.body.contains("no secret password"),
        "{}",
        refused.body
    );
    set(&shell, FIRST);
    shell.0.deploy_healthy(HELLO, &archive);
    check(&shell, FIRST);

    let load = shell
        .0
        .user()
        .load(shell.0.balancer(), "hello.localhost", 4);
    let said = set(&shell, SECOND);
    assert!(
        said.contains("the processes of hello are replaced"),
        "{said}"
    );
    shell.0.wait("the second revision", || {
        let processes = shell.0.processes("hello");
        let is_new =
            |it: &&tucano_api::state::ProcessView| it.routed && it.report.revision == Revision(2);
        (processes.len() == 3 && processes.iter().filter(is_new).count() == 3).then_some(())
    });
    let sent = load.stop();
    let failed: Vec<_> = sent.iter().filter(|sample| !sample.is_ok()).collect();
    assert!(!sent.is_empty() && failed.is_empty(), "{failed:?}");
    check(&shell, SECOND);

    // A process restarts without a controller, and with an agent that has just been started.
    shell.0.kill_ctld();
    shell.0.kill_agent(0);
    let running = shell.0.running_on(0);
    let hello = running.iter().find(|it| it.arguments.ends_with("/hello"));
    hello.expect("a process of the service").kill();
    shell.0.start_agent(0);
    shell.0.wait("another process", || {
        let running = shell.0.running_on(0);
        let mut new = running.iter().filter(|it| it.arguments.ends_with("/hello"));
        new.find(|it| hello.is_some_and(|old| old.pid != it.pid))
            .map(drop)
    });
    shell.0.start_ctld();
    check(&shell, SECOND);

    let texts = [FIRST, SECOND];
    let found = files_with(&shell.0.path(""), &texts);
    assert!(found.is_empty(), "{found:?}");
    for arguments in [
        &["state"][..],
        &["secret", "ls"],
        &["secret", "ls", "--json"],
        &["ps"],
        &["services", "--json"],
        &["logs", "hello"],
    ] {
        let output = shell.tucano(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            texts.iter().all(|text| !said.contains(text)),
            "{arguments:?}"
        );
    }
    for index in 0..3 {
        let programs = of_programs(&shell.0, index);
        assert!(texts.iter().all(|text| !programs.contains(text)));
    }
}
