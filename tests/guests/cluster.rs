//! A cluster of three workers on three kernels: this machine's own, User-mode Linux, and Debian's on an emulated machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tucano_api::state::AlertKind;
use tucano_testkit::{needs, programs, tool};
use tucano_tests::{CLUSTER, Cluster, Options, images, images::workspace};
use tucano_vhost::Host;

use crate::{
    emulated::{self, EMULATED},
    guest::{GUEST, here, make_disk},
};

/// Guests are slow, and more so while this machine has much to do.
const PATIENCE: Duration = Duration::from_secs(400);

const HELLO: &str = "name = \"hello\"\nconcurrency = 3\nport = 8080\nmemory = \"32MiB\"\n\
    health = { http = \"/healthz\", interval = \"1s\", timeout = \"30s\", grace = \"120s\" }\n";

#[test]
fn three_kernels_are_one_cluster_and_one_of_them_is_killed() {
    let tools = [tool("iptables-legacy"), tool("curl")];
    if !needs(&[&CLUSTER[..], &GUEST, &EMULATED, &tools].concat()) {
        return;
    }
    let mut cluster = Cluster::start(&Options {
        ctl_settings: "lease = \"90s\"\ndrain = \"500ms\"\n".to_owned(),
        agent_settings: "publish_interval = \"2s\"\n".to_owned(),
        agents: BTreeMap::from([
            (1, user_mode as fn(&Host, &Path) -> Command),
            (2, emulated_machine),
        ]),
        patience: PATIENCE,
        ..Options::default()
    });
    let logs = cluster.logs();
    let others = [user_mode_release(), emulated::release()];
    assert_ne!(others[0], others[1]);
    for kernel in others {
        assert_ne!(kernel, own_release());
        assert!(
            logs.contains(&format!("kernel: {kernel}")),
            "{kernel} {logs}"
        );
    }

    let answer = cluster.deploy(HELLO, &images::sample("hello"), "");
    assert_eq!(answer.status, 201, "{answer:?}");
    cluster.wait_for_healthy("hello", 3);
    let one_each = ["w1", "w2", "w3"].map(|node| (node.to_owned(), 1));
    assert_eq!(
        cluster.placement("hello"),
        BTreeMap::from(one_each),
        "{}",
        cluster.logs()
    );
    let all = ["hello-1", "hello-2", "hello-3"].map(str::to_owned);
    assert_eq!(cluster.answering("hello", 9), BTreeSet::from(all));

    cluster.power_off(1);
    cluster.wait("the killed kernel's process on another", || {
        let placement = cluster.placement("hello");
        let is_replaced = placement.values().sum::<usize>() == 3 && !placement.contains_key("w2");
        is_replaced.then_some(())
    });
    cluster.wait("the alert", || {
        cluster.alerts().all().iter().any(is_missing).then_some(())
    });
    assert_eq!(cluster.answering("hello", 9).len(), 3);
}

fn is_missing(alert: &tucano_api::state::Alert) -> bool {
    alert.kind == AlertKind::NodeMissing && alert.subject == "w2"
}

fn own_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    text.trim().to_owned()
}

fn user_mode_release() -> String {
    let output = Command::new("linux.uml").arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What runs a worker's agent in a User-mode Linux of its own.
fn user_mode(host: &Host, settings: &Path) -> Command {
    let directory = furnish(host, settings);
    let mut command = host.command(here().join("uml-worker.sh")).unwrap();
    command
        .arg(&directory)
        .arg(format!("init={}", here().join("init.sh").display()))
        .arg("modules=/usr/lib/uml/modules")
        .args(words(host));
    command
}

/// What runs a worker's agent on an emulated machine.
fn emulated_machine(host: &Host, settings: &Path) -> Command {
    let directory = furnish(host, settings);
    let line = emulated::prepare(&directory, &words(host));
    let mut command = host.command(here().join("emulated-worker.sh")).unwrap();
    command.arg(&directory).arg(emulated::kernel()).arg(line);
    command
}

/// A directory with a disk that has the agent's settings on it: a guest's own /tmp hides where they are.
fn furnish(host: &Host, settings: &Path) -> PathBuf {
    let directory = host.directory().join("guest");
    let tree = directory.join("tree");
    fs::create_dir_all(&tree).unwrap();
    // A guest's own /tmp hides where the cluster's files are.
    let text = fs::read_to_string(settings).unwrap();
    let ca_file = settings.with_file_name("ca.pem");
    let on_disk = text.replace(ca_file.to_str().unwrap(), "/mnt/disk/ca.pem");
    assert_ne!(on_disk, text);
    fs::write(tree.join("agent.toml"), on_disk).unwrap();
    fs::copy(ca_file, tree.join("ca.pem")).unwrap();
    make_disk(&directory.join("disk"), Some(&tree));
    directory
}

fn words(host: &Host) -> Vec<String> {
    vec![
        format!("begin={}", here().join("init.sh").display()),
        format!("task={}", here().join("agent.sh").display()),
        format!("workspace={}", workspace().display()),
        format!("directory={}", programs().display()),
        format!("address={}", host.ip()),
    ]
}
