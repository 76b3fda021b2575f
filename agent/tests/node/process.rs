//! What a service sets in place of its image's configuration: all of it in one container.

use std::{fs, path::PathBuf, process::Command};

use crate::node::{Node, on_a_node, process};

const CONFIG: &str = "entrypoint = [\"/hello\"]\nworking_dir = \"/srv/new\"\nhostname = \"mx.example.org\"\nstop_signal = \"SIGINT\"\n\
    ulimits = { nofile = { soft = 500, hard = 600 }, stack = 1048576 }\n\
    sysctls = { \"net.core.somaxconn\" = \"99\", \"kernel.shmmni\" = \"77\" }\n\
    extra_hosts = { printer = \"10.1.0.7\" }\ndns = [\"10.9.9.9\"]\n";

fn read(node: &Node, path: &str) -> String {
    let path: PathBuf = format!("/proc/{}/root{path}", node.pid("hello-1")).into();
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_container_has_what_its_service_sets_in_place_of_the_image() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, CONFIG)]).await;
        node.wait_until_healthy("hello-1").await;
        let pid = node.pid("hello-1");
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(cwd.ends_with("srv/new"), "{cwd:?}");
        assert_eq!(read(&node, "/etc/hostname"), "mx.example.org\n");
        assert!(read(&node, "/etc/hosts").contains("10.1.0.7 printer\n"));
        assert_eq!(read(&node, "/etc/resolv.conf"), "nameserver 10.9.9.9\n");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            let words: Vec<&str> = line[name.len()..].split_whitespace().collect();
            format!("{} {}", words[0], words[1])
        };
        assert_eq!(limit("Max open files"), "500 600");
        assert_eq!(limit("Max stack size"), "1048576 1048576");
        assert_eq!(limit("Max core file size"), "0 0");
        // A setting is that of the reader's namespaces.
        for (name, value) in [("net/core/somaxconn", "99"), ("kernel/shmmni", "77")] {
            let output = Command::new("nsenter")
                .args(["--target", &pid.to_string(), "--ipc", "--net", "cat"])
                .arg(format!("/proc/sys/{name}"))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), value);
        }
    });
}
