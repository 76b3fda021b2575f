//! Virtual hosts: reachability, isolation, power cuts, and removal without leftovers.

#![allow(
    clippy::unwrap_used,
    reason = "test helpers: a failed step fails the test"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tucano_testkit::{ROOT, needs, tool, wait_for, wait_until};
use tucano_vhost::{Error, Host, HostOptions, Network, NetworkOptions, cgroups};

const PATIENCE: Duration = Duration::from_secs(20);

fn network(name: &str, directory: &Path) -> Network {
    let name = format!("{name}-{}", std::process::id());
    Network::create(NetworkOptions::new(name, directory)).unwrap()
}

fn boot(network: &Network, count: u32) -> Vec<Host> {
    let host = |n| HostOptions::new(format!("w{n}"), network.subnet().address(10 + n));
    (1..=count)
        .map(|n| network.boot(host(n)).unwrap())
        .collect()
}

/// Output of a shell script on the host.
fn shell(host: &Host, script: &str) -> String {
    let output = host
        .command("sh")
        .unwrap()
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether TCP packets of one host reach another; a refused connection counts.
fn reaches(from: &Host, to: &Host) -> bool {
    let script = format!("exec 3<>/dev/tcp/{}/9", to.ip());
    let mut bash = from.command("timeout").unwrap();
    let output = bash.args(["1", "bash", "-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stderr).contains("refused")
}

/// Retries: after a failed ARP request the kernel delays the next one.
fn assert_reaches(from: &Host, to: &Host) {
    let what = format!("{} to reach {}", from.name(), to.name());
    wait_until(&what, PATIENCE, || reaches(from, to));
}

fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn hosts_have_names_addresses_and_reach_each_other() {
    if !needs(&[ROOT, tool("ip"), tool("bash")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("reach", directory.path());
    let hosts = boot(&network, 3);
    for from in &hosts {
        assert_eq!(shell(from, "hostname"), from.name());
        assert_eq!(shell(from, "cat /etc/hostname"), from.name());
        assert_eq!(shell(from, "ls /sys/class/net"), "eth0\nlo");
        assert_eq!(shell(from, "ls /run"), "lock");
        assert_eq!(shell(from, "cat /proc/1/comm"), "tucano_vhost");
        assert!(Path::new("/sys/fs/cgroup").exists());
        assert_eq!(
            shell(from, "ls /sys/fs/cgroup"),
            shell_outside("ls /sys/fs/cgroup")
        );
        for to in &hosts {
            assert_reaches(from, to);
            assert!(shell(from, "cat /etc/hosts").contains(&format!("{} {}", to.ip(), to.name())));
        }
    }
    network.destroy().unwrap();
}

fn shell_outside(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_root_network_namespace_is_not_changed() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let links = || shell_outside("ip -o link | cut -d: -f2 | cut -d@ -f1");
    let before = links();
    let directory = tempfile::tempdir().unwrap();
    let network = network("hidden", directory.path());
    boot(&network, 1);
    assert_eq!(links(), before);
    let inside = network
        .command("ip")
        .unwrap()
        .args(["-o", "link"])
        .output()
        .unwrap();
    assert!(String::from_utf8(inside.stdout).unwrap().contains("br0"));
}

#[test]
fn an_isolated_host_is_unreachable_until_it_rejoins() {
    if !needs(&[ROOT, tool("ip"), tool("bash")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("isolate", directory.path());
    let [a, b] = boot(&network, 2).try_into().unwrap();
    assert_reaches(&a, &b);
    b.isolate().unwrap();
    assert!(!reaches(&a, &b));
    assert!(!reaches(&b, &a));
    assert_eq!(shell(&b, "echo goes on"), "goes on");
    b.rejoin().unwrap();
    assert_reaches(&a, &b);
}

#[test]
fn a_cut_separates_two_hosts_and_no_others() {
    if !needs(&[ROOT, tool("ip"), tool("nft"), tool("bash")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("cut", directory.path());
    let [a, b, c] = boot(&network, 3).try_into().unwrap();
    network.cut(&a, &b).unwrap();
    network.cut(&a, &b).unwrap();
    assert!(!reaches(&a, &b) && !reaches(&b, &a));
    assert_reaches(&a, &c);
    assert_reaches(&c, &b);
    network.heal(&a, &b).unwrap();
    assert_reaches(&a, &b);
}

#[test]
fn a_power_cut_kills_everything_inside_and_the_directory_survives() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("power", directory.path());
    let host = boot(&network, 1).remove(0);
    fs::write(host.directory().join("kept"), "data").unwrap();
    // An orphan in a session of its own, like a container's supervisor.
    shell(
        &host,
        "setsid sh -c 'cd / && exec sleep 1000' >/dev/null 2>&1 </dev/null &",
    );
    let mut child = host.command("sleep").unwrap().arg("1000").spawn().unwrap();
    let inside = || {
        let network_of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = host.pid().ok().and_then(|pid| network_of(&pid.to_string()));
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap());
        pids.filter(|pid| own.is_some() && network_of(pid) == own)
            .collect::<Vec<_>>()
    };
    let pids = wait_for("the programs to run", PATIENCE, || {
        let pids = inside();
        let sleeping = |pid: &&String| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep")
        };
        (pids.iter().filter(sleeping).count() == 2).then_some(pids)
    });
    let marks = cgroups::own().unwrap();
    let cgroup = marks.last().unwrap().join(host.cgroup()).join("process");
    fs::create_dir_all(&cgroup).unwrap();

    host.power_off().unwrap();
    assert!(!child.wait().unwrap().success());
    for pid in pids {
        wait_until("every process to be gone", PATIENCE, || {
            !alive(pid.parse().unwrap())
        });
    }
    assert!(!cgroup.exists());
    assert!(matches!(host.command("true"), Err(Error::NotUp(_))));
    assert_eq!(
        fs::read_to_string(host.directory().join("kept")).unwrap(),
        "data"
    );

    let again = boot(&network, 1).remove(0);
    assert_eq!(shell(&again, "hostname"), "w1");
    assert_eq!(shell(&host, "ls /sys/class/net"), "eth0\nlo");
}

#[test]
fn a_host_whose_init_was_killed_is_down_and_boots_again() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("killed", directory.path());
    let host = boot(&network, 1).remove(0);
    assert!(host.is_up());
    let init = rustix::process::Pid::from_raw(host.pid().unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    wait_until("the host to be down", PATIENCE, || !host.is_up());
    host.power_off().unwrap();
    boot(&network, 1);
    assert!(host.is_up());
}

#[test]
fn exit_status_and_signals_of_a_program_pass_through() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("run", directory.path());
    let host = boot(&network, 1).remove(0);
    let status = |script: &str| {
        host.command("sh")
            .unwrap()
            .args(["-c", script])
            .status()
            .unwrap()
    };
    assert_eq!(status("exit 3").code(), Some(3));
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status("kill -9 $$")),
        Some(9)
    );
    let missing = host.command("no-such-program").unwrap().output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("no-such-program"), "{said}");

    let mut trap = host.command("sh").unwrap();
    trap.args([
        "-c",
        "trap 'exit 7' TERM; echo set; while :; do sleep 0.05; done",
    ]);
    let mut child = trap.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let guide = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(guide, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn killing_the_command_kills_the_program() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("guide", directory.path());
    let host = boot(&network, 1).remove(0);
    let mut command = host.command("sh").unwrap();
    let mut child = command
        .args(["-c", "echo up; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 3]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // The pipe closes when the program, its last writer, has ended.
    assert_eq!(output.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_switch_and_the_hosts_reach_each_other() {
    if !needs(&[ROOT, tool("ip"), tool("bash")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("observe", directory.path());
    let host = boot(&network, 1).remove(0);
    let listener = network
        .listen(SocketAddr::new(network.ip_address().into(), 0))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("echo hello >/dev/tcp/{}/{port}", network.ip_address());
    let mut child = host
        .command("bash")
        .unwrap()
        .args(["-c", &script])
        .spawn()
        .unwrap();
    let mut said = String::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "hello\n");
    assert!(child.wait().unwrap().success());
    let target = SocketAddr::new(host.ip().into(), 9);
    let refused = network
        .enter(|| TcpStream::connect(target))
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn invalid_options_are_refused_with_the_reason() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let network = network("refuse", directory.path());
    boot(&network, 1);
    let subnet = network.subnet();
    let refused = |name: &str, n| {
        network
            .boot(HostOptions::new(name, subnet.address(n)))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("w1", 11).contains("already running"));
    assert!(refused("w2", 11).contains("another host has it"));
    assert!(refused("w2", 1).contains("not an address for hosts"));
    assert!(refused("W 2", 12).contains("not a valid name"));
    let second = Network::create(NetworkOptions::new("second", directory.path())).unwrap_err();
    assert!(
        second
            .to_string()
            .contains("in use by another running cluster"),
        "{second}"
    );
    let hidden = Network::create(NetworkOptions::new("hidden", "/run/x")).unwrap_err();
    assert!(hidden.to_string().contains("/run"), "{hidden}");
}

#[test]
#[ignore = "helper process of the tests that kill a creator"]
fn as_a_creator() {
    let Some(directory) = env::var_os("TUCANO_VHOST_TEST_DIRECTORY") else {
        return;
    };
    let mut options = NetworkOptions::new(format!("creator-{}", std::process::id()), directory);
    options.dies_with_creator = env::var_os("TUCANO_VHOST_TEST_OUTLIVE").is_none();
    let network = Network::create(options).unwrap();
    let host = boot(&network, 1).remove(0);
    let cgroup = cgroups::own().unwrap().pop().unwrap().join(host.cgroup());
    fs::create_dir_all(&cgroup).unwrap();
    let orphan = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & cat /proc/sys/kernel/hostname";
    assert_eq!(shell(&host, orphan), "w1");
    println!("\ncreated {} {}", host.pid().unwrap(), cgroup.display());
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Starts a creator of a network in `directory` and kills it with SIGKILL; returns the pid of the host's init and the host's cgroup.
fn create_and_kill(directory: &Path, outlive: bool) -> (i32, std::path::PathBuf) {
    let mut creator = Command::new(env::current_exe().unwrap());
    creator.args(["--exact", "as_a_creator", "--ignored", "--nocapture"]);
    creator.env("TUCANO_VHOST_TEST_DIRECTORY", directory);
    if outlive {
        creator.env("TUCANO_VHOST_TEST_OUTLIVE", "1");
    }
    let mut creator = creator
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(creator.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|line| line.starts_with("created "))
        .unwrap();
    let mut words = line.split(' ').skip(1);
    let pid = words.next().unwrap().parse().unwrap();
    let cgroup = words.next().unwrap().into();
    assert!(alive(pid));
    creator.kill().unwrap();
    creator.wait().unwrap();
    (pid, cgroup)
}

#[test]
fn everything_ends_with_a_killed_creator() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (init, cgroup) = create_and_kill(directory.path(), false);
    wait_until("the host to end with its creator", PATIENCE, || {
        !alive(init)
    });
    let record = fs::read_to_string(directory.path().join("network.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    for process in record["processes"].as_array().unwrap() {
        let pid = process["pid"].as_i64().unwrap();
        wait_until("the switch to end too", PATIENCE, || !alive(pid as i32));
    }
    network("after", directory.path()).destroy().unwrap();
    assert!(!cgroup.exists(), "the next creator removes the cgroups");
}

#[test]
fn a_network_may_outlive_its_creator_until_the_next_one() {
    if !needs(&[ROOT, tool("ip")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (init, cgroup) = create_and_kill(directory.path(), true);
    assert!(alive(init));
    let network = network("next", directory.path());
    assert!(
        !alive(init),
        "leftovers are killed before the new network starts"
    );
    assert!(!cgroup.exists());
    boot(&network, 1);
    network.destroy().unwrap();
    assert!(!directory.path().join("network.json").exists());
}
