//! Configuration files of a service in its containers.

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
