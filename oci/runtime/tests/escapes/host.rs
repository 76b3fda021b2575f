//! Attacks on the host's settings.

use std::fs;

use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::Outside,
};

/// CVE-2022-0492: whoever writes `release_agent` of a v1 hierarchy has the host's kernel execute a program as root. A naive
/// runtime shows the hierarchy's root, writable; or a new user namespace, with which to mount it, is all it takes.
#[test]
fn no_release_agent_can_be_set() {
    if !needs(&NEEDS) {
        return;
    }
    let script = r#"
for agent in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do
  if [ -e $agent ]; then echo found $agent; fi
done
for file in /sys/fs/cgroup/notify_on_release /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/cgroup.procs; do
  if [ -e $file ]; then echo 1 2>/dev/null > $file && echo wrote $file; fi
done
for controller in rdma pids memory misc freezer; do
  busybox unshare -UrCm busybox sh -c "busybox mkdir -p /m && busybox mount -t cgroup -o $controller c /m &&
    for agent in \$(busybox find /m -name release_agent); do echo /pwn > \$agent && echo wrote \$agent; done" 2>/dev/null
done
echo end
"#;
    let mut case = Case::new(script);
    case.config["root"]["readonly"] = false.into();
    let output = case.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "end\n",
        "{output:?}"
    );
}

/// CVE-2026-53488: a naive engine copies an image's labels into the configuration's annotations, and a naive runtime does what
/// some annotation says: runs hooks, sets a unit's properties, keeps the host's groups.
#[test]
fn annotations_do_nothing() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("id -G; cat /proc/self/status");
    let outside = Outside::of(&case);
    let file = outside.file();
    case.config["annotations"] = json!({
        "run.oci.hooks.stdout": file,
        "run.oci.hooks.stderr": file,
        "run.oci.keep_original_groups": "1",
        "run.oci.seccomp.receiver": file,
        "run.oci.mount_context_type": "context",
        "run.oci.systemd.subgroup": "../../../outside",
        "run.oci.handler": "wasm",
        "org.systemd.property.ExecStopPost": "['/bin/sh']",
        "org.criu.config": file,
        "io.kubernetes.cri-o.Devices": "/dev/kmsg",
        "org.opencontainers.image.source": file,
    });
    let output = case.run();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("0\n"), "{said}");
    assert!(output.status.success());
    outside.assert_untouched();
    assert!(case.is_gone());
    assert_eq!(
        fs::read_dir(case.path("rootfs/dev")).map_or(0, Iterator::count),
        0
    );
}
