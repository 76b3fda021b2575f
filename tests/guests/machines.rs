//! The machines of the tests themselves: systemd, cgroup v2, a network between them, disks that survive power cuts.

use tucano_testkit::needs;
use tucano_tests::machines::{MACHINES, Machines, Output};

#[test]
fn machines_boot_systemd_reach_each_other_and_survive_power_cuts() {
    if !needs(&MACHINES) {
        return;
    }
    let machines = Machines::new();
    let [one, mut other] = machines.boot(["one", "other"]);

    assert_eq!(one.ok("systemctl is-system-running"), "running\n");
    assert_eq!(one.ok("stat -fc %T /sys/fs/cgroup"), "cgroup2fs\n");
    assert_eq!(one.ok("hostname"), "one\n");
    let failed = Output {
        exit: 3,
        text: "out\nerr\n".to_owned(),
    };
    assert_eq!(one.run("echo out; echo err >&2; exit 3"), failed);
    let lines = one.ok("wc -l </workspace/Cargo.lock");
    assert!(lines.trim().parse::<u32>().unwrap() > 100, "{lines}");
    assert_ne!(one.run("touch /workspace/new").exit, 0);

    // More than one packet at a time comes from the test, too.
    let long = format!("wc -c <<END\n{}\nEND", "x".repeat(100_000));
    assert_eq!(one.ok(&long), "100001\n");

    // Connections between machines, of many packets.
    other.ok("head -c 3000000 /dev/zero >/srv/zeros; sync");
    other.ok("cat >/run/systemd/system/zeros.socket <<END
[Socket]
ListenStream=8
Accept=yes
END
cat >/run/systemd/system/zeros@.service <<END
[Service]
ExecStart=cat /srv/zeros
StandardOutput=socket
END
systemctl daemon-reload && systemctl start zeros.socket");
    let count = format!("cat </dev/tcp/{}/8 | wc -c", other.ip());
    assert_eq!(one.ok(&count), "3000000\n");

    let boot = other.ok("cat /proc/sys/kernel/random/boot_id");
    other.power_off();
    let unreachable = one.run(&format!("timeout 3 cat </dev/tcp/{}/8", other.ip()));
    assert_ne!(unreachable.exit, 0, "{unreachable:?}");
    other.boot();
    assert_ne!(other.ok("cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(other.ok("stat -c %s /srv/zeros"), "3000000\n");
    assert!(other.console().contains("systemd"), "{}", other.console());
}
