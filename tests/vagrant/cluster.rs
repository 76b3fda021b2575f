//! What `vagrant up` does on Ubuntu, on machines of the test's own: the same script, twice, and the smoke script.

use std::{collections::BTreeSet, fs, path::Path, thread};

use tucano_testkit::{needs, tool};
use tucano_tests::{
    images::{sample, workspace},
    machines::{MACHINES, Machine, Machines},
};

/// Where Vagrant uploads files to.
const UPLOADS: &str = "/home/vagrant/tucano";
const TOKEN: &str = "the-token-of-the-agents-of-a-test";
/// All that the script, the packages and their units write, and the programs that run.
const TRACES: &str = "find /etc /usr/bin /usr/sbin /lib/systemd /var/lib/tucano-provision /var/lib/dpkg/info \
    -printf '%p %u:%g %m %T@ %s\\n'; cat /etc/tucano/*.toml; \
    systemctl show --property=Id,MainPID,ActiveEnterTimestamp,NRestarts 'tucano-*'";

#[test]
fn one_script_makes_a_cluster_and_changes_nothing_when_it_runs_again() {
    if !needs(&MACHINES) || !needs(&[tool("bash"), tool("busybox"), tool("curl")]) {
        return;
    }
    let machines = Machines::new();
    let authority = tempfile::tempdir().unwrap();
    tucano_tls::Authority::open(authority.path()).unwrap();
    let authority = authority.path();
    let cluster = machines.boot(["ctl", "w1", "w2"]);

    impossible_arguments_are_refused(&cluster[0]);

    // The controller last, as `vagrant up` does it: workers wait for it.
    let [ctl, workers @ ..] = cluster.each_ref();
    for output in [
        provision(&cluster, authority, &workers),
        provision(&cluster, authority, &[ctl]),
    ]
    .concat()
    {
        assert!(!output.ends_with("changes: 0\n"), "{output}");
    }
    tokens_have_their_places_and_modes(&cluster);

    let before = cluster.each_ref().map(traces);
    for output in provision(&cluster, authority, &cluster.each_ref()) {
        assert!(output.ends_with("changes: 0\n"), "{output}");
    }
    for (machine, before) in cluster.iter().zip(&before) {
        let after = traces(machine);
        let changes: Vec<_> = before.symmetric_difference(&after).collect();
        assert!(changes.is_empty(), "{}: {changes:#?}", machine.name());
    }

    smoke(&machines, &cluster);
}

fn traces(machine: &Machine) -> BTreeSet<String> {
    machine.ok(TRACES).lines().map(str::to_owned).collect()
}

/// Uploads files and runs the script on some machines of the cluster, at once; what it wrote.
fn provision(cluster: &[Machine; 3], authority: &Path, machines: &[&Machine]) -> Vec<String> {
    thread::scope(|scope| {
        let threads: Vec<_> = machines
            .iter()
            .map(|machine| scope.spawn(move || provision_one(cluster, authority, machine)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn provision_one(cluster: &[Machine; 3], authority: &Path, machine: &Machine) -> String {
    upload(machine, authority);
    let [ctl, w1, w2] = cluster;
    let (name, ip) = (machine.name(), machine.ip());
    let role = if name == "ctl" {
        format!(
            "controller --worker w1={} --worker w2={} --lease 60s",
            w1.ip(),
            w2.ip()
        )
    } else {
        format!("worker --name {name} --controller {}", ctl.ip())
    };
    machine.ok(&format!(
        "/workspace/vagrant/provision.sh {role} --ip {ip} --files {UPLOADS}"
    ))
}

fn impossible_arguments_are_refused(machine: &Machine) {
    for (arguments, message) in [
        ("", "--files : there is no such directory"),
        ("worker --files /root", "--ip is missing"),
        ("worker --files /root --ip", "--ip lacks its value"),
        (
            "worker --files /root --iq 10.0.0.1",
            "there is no option --iq",
        ),
        ("ctl --files /root --ip 10.0.0.1", "controller or worker"),
        ("worker --files /root --ip 10.0.0.1", "--name is missing"),
        (
            "controller --files /root --ip 10.0.0.1",
            "--worker is missing",
        ),
    ] {
        let output = machine.run(&format!("/workspace/vagrant/provision.sh {arguments}"));
        assert_eq!(output.exit, 1, "{arguments}: {output:?}");
        assert!(output.text.contains(message), "{arguments}: {output:?}");
    }
    machine.ok("! test -e /etc/tucano && ! test -e /var/lib/tucano-provision");
}

fn upload(machine: &Machine, authority: &Path) {
    let read = |name: &str| fs::read_to_string(authority.join(name)).unwrap();
    let (key, certificate) = (read("ca-key.pem"), read("ca.pem"));
    // As Vagrant uploads it: the key to the controller alone.
    let key = match machine.name() {
        "ctl" => format!("printf %s '{key}' >ca-key.pem"),
        _ => "true".to_owned(),
    };
    let image = sample("hello");
    let image = image.strip_prefix(workspace()).unwrap().display();
    machine.ok(&format!(
        "umask 077; mkdir -p {UPLOADS} && cd {UPLOADS} && cp /workspace/target/packages/dev/*.deb . && \
         cp /workspace/{image} /workspace/images/hello/service.toml . && printf %s {TOKEN} >agent-token && \
         printf %s '{certificate}' >ca.pem && {key}"
    ));
}

fn tokens_have_their_places_and_modes(cluster: &[Machine; 3]) {
    let [ctl, w1, w2] = cluster;
    let list = "cd /etc/tucano; stat --format '%n %U:%G %a' *token*";
    assert_eq!(
        ctl.ok(list),
        "agent-token root:tucano 640\ntoken root:tucano 640\n"
    );
    for machine in cluster {
        assert_eq!(machine.ok("cat /etc/tucano/agent-token"), TOKEN);
        machine.ok(&format!(
            "! test -e {UPLOADS}/agent-token && ! test -e {UPLOADS}/ca-key.pem"
        ));
    }
    let sysadmins = ctl.ok("cat /etc/tucano/token");
    assert!(sysadmins.trim().len() >= 64, "{}", sysadmins.len());
    for worker in [w1, w2] {
        assert_eq!(worker.ok(list), "agent-token root:root 600\n");
        // What agents know opens nothing of the sysadmin's.
        let status = worker.ok(&format!(
            "curl --silent --output /dev/null --write-out '%{{http_code}}' --oauth2-bearer {TOKEN} --cacert /etc/tucano/ca.pem https://{}:7070/v1/services",
            ctl.ip()
        ));
        assert!(["401", "403"].contains(&status.as_str()), "{status}");
    }
}

fn smoke(machines: &Machines, cluster: &[Machine; 3]) {
    let addresses: Vec<String> = cluster
        .iter()
        .map(|machine| format!("{}={}", machine.name(), machine.ip()))
        .collect();
    let net = cluster[0].ip().to_string();
    let output = machines
        .network()
        .command("bash")
        .unwrap()
        .arg(workspace().join("vagrant/smoke.sh"))
        .env("ON", workspace().join("tests/vagrant/on.sh"))
        .env("MACHINES", addresses.join(" "))
        .env("TUCANO_NET", net.rsplit_once('.').unwrap().0)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.trim_end().ends_with("all is well"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
