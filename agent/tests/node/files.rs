//! Configuration files and mounts of a service in its containers.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use crate::node::{Node, on_a_node, process};

/// A path in the container's root, as the host reaches it.
fn inside(node: &Node, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", node.pid("hello-1")).into()
}

/// The id on the host of an id in the container.
fn host_id(node: &Node, id: u32) -> u32 {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", node.pid("hello-1"))).unwrap();
    let numbers: Vec<u32> = map.split_whitespace().flat_map(str::parse).collect();
    assert_eq!(numbers[0], 0, "{map}");
    numbers[1] + id
}

#[test]
fn a_container_has_its_services_files_with_mode_and_owner_read_only() {
    on_a_node("", async |mut node| {
        let files = "read_only = true\n\
             [[file]]\npath = \"/etc/app/deep/app.toml\"\ncontent = \"a = \\\"é\\\"\\n\"\nmode = \"0640\"\nuid = 33\ngid = 34\n\
             [[file]]\npath = \"/run.sh\"\ncontent = \"#!/bin/sh\\n\"\nmode = \"755\"\n";
        node.desire(1, vec![process("hello", 1, files)]).await;
        node.wait_until_healthy("hello-1").await;
        let app = inside(&node, "/etc/app/deep/app.toml");
        assert_eq!(fs::read_to_string(&app).unwrap(), "a = \"é\"\n");
        let of_app = fs::metadata(&app).unwrap();
        assert_eq!(of_app.permissions().mode() & 0o7777, 0o640);
        assert_eq!(
            (of_app.uid(), of_app.gid()),
            (host_id(&node, 33), host_id(&node, 34))
        );
        let of_script = fs::metadata(inside(&node, "/run.sh")).unwrap();
        assert_eq!(of_script.permissions().mode() & 0o7777, 0o755);
        assert_eq!(of_script.uid(), host_id(&node, 0));
        let error = fs::write(&app, "x").unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ReadOnlyFilesystem,
            "{error}"
        );
        let mounts =
            fs::read_to_string(format!("/proc/{}/mountinfo", node.pid("hello-1"))).unwrap();
        let options = |path: &str| {
            let line = mounts.lines().find(|line| line.contains(path)).unwrap();
            line.split(' ').nth(5).unwrap().to_owned()
        };
        assert!(
            options("/etc/app/deep/app.toml").contains("noexec"),
            "{mounts}"
        );
        assert!(!options("/run.sh").contains("noexec"), "{mounts}");

        // A restart by another agent has them, too; other files need another process.
        node.kill_agent();
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        assert_eq!(
            fs::read_to_string(inside(&node, "/run.sh")).unwrap(),
            "#!/bin/sh\n"
        );
        node.remove_all(2).await;
        assert!(!node.data("processes/hello-1").exists());
    });
}

#[test]
fn a_tmpfs_is_writable_bounded_and_empty_at_each_start() {
    on_a_node("", async |node| {
        let mounts = "memory = \"32MiB\"\nread_only = true\n[[mount]]\npath = \"/var/cache/app\"\ntmpfs = \"1MiB\"\n";
        node.desire(1, vec![process("hello", 1, mounts)]).await;
        node.wait_until_healthy("hello-1").await;
        let first = node.pid("hello-1");
        let place = inside(&node, "/var/cache/app");
        let mode = fs::metadata(&place).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
        fs::write(place.join("small"), "x").unwrap();
        let full = fs::write(place.join("large"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");

        // The next process of the same container begins with nothing.
        let pid = nix::unistd::Pid::from_raw(first.try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        node.wait_for_process("hello-1", "a restart", |it| {
            it.restarts == 1 && it.node_port.is_some()
        })
        .await;
        node.wait_until_healthy("hello-1").await;
        assert_ne!(node.pid("hello-1"), first);
        assert_eq!(
            fs::read_dir(inside(&node, "/var/cache/app"))
                .unwrap()
                .count(),
            0
        );
        node.remove_all(2).await;
    });
}
