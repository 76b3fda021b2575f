//! Devices that the node describes for containers.

use std::fs;

use tucano_api::{agent::DesiredProcess, service::AssignedDevice};

use crate::{
    backups::process_of,
    node::{Node, on_a_node, process},
};

/// A description with two devices, which are nodes of the kernel that do no harm. Containers open `/dev/fuse` only where they are given it.
const DESCRIPTION: &str = r#"{
  "cdiVersion": "0.6.0", "kind": "acme.com/null",
  "devices": [
    {"name": "0", "containerEdits": {"env": ["ACME=0"], "deviceNodes": [{"path": "/dev/acme0", "hostPath": "/dev/fuse"},
      {"path": "/dev/closed", "hostPath": "/dev/kmsg", "permissions": "none"}]}},
    {"name": "1", "containerEdits": {"env": ["ACME=1"], "deviceNodes": [{"path": "/dev/acme1", "hostPath": "/dev/full"}]}}
  ],
  "containerEdits": {
    "mounts": [{"hostPath": "LIBRARY", "containerPath": "/usr/lib/acme.so", "options": ["ro", "bind", "nodev"]}],
    "additionalGids": [44]
  }
}"#;

/// Writes which of the device nodes it can open, and then serves.
const TRY: &str = "try() { if true < $1; then echo $1; fi; }; { try /dev/acme0; try /dev/closed; try /dev/zero; } > /opened; exec /hello";

fn own(name: &str) -> AssignedDevice {
    AssignedDevice {
        kind: "acme.com/null".parse().unwrap(),
        name: name.parse().unwrap(),
        units: [name.parse().unwrap()].into(),
    }
}

fn with(number: u64, devices: &str, name: &str) -> DesiredProcess {
    DesiredProcess {
        devices: vec![own(name)],
        ..process("hello", number, &format!("devices = [{devices}]"))
    }
}

/// Like [`with`], as process 1 with a program that tries to open its devices.
fn trying(node: &Node, devices: &str, name: &str) -> DesiredProcess {
    let mut process = process_of(node, TRY);
    process.config.volume.clear();
    process.volumes.clear();
    process.slot = None;
    process.config.devices = with(1, devices, name).config.devices;
    process.devices = vec![own(name)];
    process
}

/// Numbers of a device node within a process's root.
fn numbers(node: &Node, id: &str, path: &str) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/proc/{}/root{path}", node.pid(id));
    let found = fs::metadata(path).ok()?.rdev();
    Some((rustix::fs::major(found), rustix::fs::minor(found)))
}

#[test]
fn containers_get_the_devices_of_their_process_and_no_others() {
    on_a_node(
        "device_paths = [\"/dev/zero\", \"/dev/no-such-node\"]",
        async |mut node| {
            let directory = node.root.path().join("cdi");
            fs::create_dir(&directory).unwrap();
            let library = node.root.path().join("acme.so").display().to_string();
            fs::write(&library, "a library").unwrap();
            let description = DESCRIPTION.replace("LIBRARY", &library);
            fs::write(directory.join("acme.json"), &description).unwrap();
            node.kill_agent();
            node.reconfigure(|text| format!("cdi_dirs = [\"{}\"]\n{text}", directory.display()));
            node.start_agent().await;
            let devices = node.wait_for("the devices", |report| {
                (!report.devices.is_empty()).then(|| report.clone())
            });
            let report = devices.await;
            assert_eq!(report.device_paths, ["/dev/zero"]);
            let names: Vec<_> = report.devices.values().flat_map(|it| it.keys()).collect();
            assert_eq!(
                names.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
                ["0", "1"]
            );

            let one = "\"acme.com/null=1\"";
            let first = trying(&node, &format!("{one}, \"/dev/zero\""), "0");
            let all = vec![first, with(2, one, "1")];
            node.desire(1, all).await;
            let first = node.wait_until_healthy("hello-1").await;
            node.wait_until_healthy("hello-2").await;
            assert_eq!(first.devices[0].to_string(), "acme.com/null=0");
            assert_eq!(
                first.relaxed[..2],
                ["device=acme.com/null=1", "device=/dev/zero"]
            );
            assert_eq!(numbers(&node, "hello-1", "/dev/acme0"), Some((10, 229)));
            assert_eq!(numbers(&node, "hello-1", "/dev/acme1"), None);
            assert_eq!(numbers(&node, "hello-2", "/dev/acme1"), Some((1, 7)));
            assert_eq!(numbers(&node, "hello-2", "/dev/acme0"), None);
            let pid = node.pid("hello-1");
            let opened = fs::read_to_string(format!("/proc/{pid}/root/opened")).unwrap();
            assert_eq!(opened, "/dev/acme0\n/dev/zero\n", "as the kernel lets it");
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert!(String::from_utf8(environment).unwrap().contains("ACME=0\0"));
            let mounted = fs::read_to_string(format!("/proc/{pid}/root/usr/lib/acme.so"));
            assert_eq!(mounted.unwrap(), "a library");
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let groups = status
                .lines()
                .find(|line| line.starts_with("Groups:"))
                .unwrap();
            assert_eq!(groups.split_whitespace().count(), 2, "{groups}");
            // What has vanished is reported, and a process with it does not start again.
            fs::remove_file(directory.join("acme.json")).unwrap();
            node.wait_for("none", |report| report.devices.is_empty().then_some(()))
                .await;
            node.desire(2, vec![with(3, one, "0")]).await;
            node.wait_for("a reason", |report| {
                let mut all = report.processes.iter().filter(|it| it.id.number() == 3);
                let reason = all.next()?.reason.clone()?;
                reason
                    .contains("acme.com/null=0 is not described")
                    .then_some(())
            })
            .await;
            node.remove_all(3).await;
        },
    );
}
