//! Secrets in containers, and nowhere else.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::node::{Node, on_a_node, process};

const PASSWORD: &[u8] = b"pa$1wor$D\n\0\xff";
const TOKEN: &[u8] = b"correct-horse battery=staple";

const CONFIG: &str = "env = { A = \"b\" }\n\
    [[secret]]\nname = \"password\"\nversion = 7\n\
    [[secret]]\nname = \"password\"\npath = \"/etc/app/password\"\nmode = \"0400\"\nuid = 33\ngid = 34\nversion = 7\n\
    [[secret]]\nname = \"token\"\nenv = \"TOKEN\"\nversion = 9\n";

fn all() -> [(&'static str, &'static [u8]); 2] {
    [("password@7", PASSWORD), ("token@9", TOKEN)]
}

fn inside(node: &Node, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", node.pid("hello-1")).into()
}

/// Asserts that the container has what the configuration says.
fn check(node: &Node) {
    let pid = node.pid("hello-1");
    assert_eq!(
        fs::read(inside(node, "/run/secrets/password")).unwrap(),
        PASSWORD
    );
    assert_eq!(
        fs::read(inside(node, "/etc/app/password")).unwrap(),
        PASSWORD
    );
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    assert!(variables.contains(&[b"TOKEN=", TOKEN].concat().as_slice()));
    assert!(variables.contains(&b"A=b".as_slice()));
}

/// Files on the same file system as `directory` that have these bytes.
pub(crate) fn files_with(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let device = fs::metadata(directory).unwrap().dev();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let is_here = fs::metadata(&path).is_ok_and(|metadata| metadata.dev() == device);
        if metadata.is_dir() && is_here {
            found.extend(files_with(&path, bytes));
        } else if metadata.is_file()
            && let Ok(content) = fs::read(&path)
            && content.windows(bytes.len()).any(|window| window == bytes)
        {
            found.push(path);
        }
    }
    found
}

fn kill_first(node: &Node) {
    let pid = Pid::from_raw(node.pid("hello-1").try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
}

#[test]
fn a_container_has_its_secrets_and_the_disk_has_none() {
    on_a_node("", async |mut node| {
        node.controller.set_secrets(Some(&all()));
        node.desire(1, vec![process("hello", 1, CONFIG)]).await;
        node.wait_until_healthy("hello-1").await;
        check(&node);
        let file = fs::metadata(inside(&node, "/etc/app/password")).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o400);
        let usual = fs::metadata(inside(&node, "/run/secrets/password")).unwrap();
        assert_eq!(usual.permissions().mode() & 0o7777, 0o444);
        assert_eq!(
            (file.uid() - usual.uid(), file.gid() - usual.gid()),
            (33, 34)
        );
        let directory = fs::metadata(inside(&node, "/run/secrets")).unwrap();
        assert_eq!(directory.permissions().mode() & 0o7777, 0o755);
        let error = fs::write(inside(&node, "/run/secrets/password"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

        // The values are in memory only, for root only, never swapped out.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let place = node.data("secrets");
        let mount = mounts
            .lines()
            .find(|line| line.contains(place.to_str().unwrap()));
        let mount = mount.unwrap();
        assert!(mount.contains("nosuid,nodev,noexec"), "{mount}");
        assert!(
            mount.contains("noswap") || mount.contains(" ramfs "),
            "{mount}"
        );
        let mode = fs::metadata(&place).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        for value in [PASSWORD, TOKEN, b"correct-horse"] {
            assert_eq!(files_with(node.root.path(), value), Vec::<PathBuf>::new());
        }
        assert!(!node.logged().contains("correct-horse"));
        let report = serde_json::to_string(&node.controller.last_report()).unwrap();
        assert!(!report.contains("correct-horse"));
        let agent = node.agent.as_ref().unwrap().id();
        let supervisor = node.supervisor("hello-1");
        for file in ["environ", "cmdline"] {
            for pid in [agent.to_string(), supervisor.to_string()] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
                assert!(!text.windows(TOKEN.len()).any(|window| window == TOKEN));
            }
        }
        node.kill_agent();
        node.start_agent().await;
        node.remove_all(2).await;
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    });
}

#[test]
fn a_restart_needs_no_controller_and_a_reboot_waits_for_it() {
    on_a_node("", async |mut node| {
        node.controller.set_secrets(Some(&all()));
        node.desire(1, vec![process("hello", 1, CONFIG)]).await;
        node.wait_until_healthy("hello-1").await;
        node.controller.set_secrets(None);

        // The process ends, with an agent that has just been started.
        let pid = node.pid("hello-1");
        node.kill_agent();
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        assert_eq!(node.pid("hello-1"), pid);
        kill_first(&node);
        node.wait_for_process("hello-1", "a restart", |it| it.restarts == 1)
            .await;
        node.wait_until_healthy("hello-1").await;
        check(&node);

        // The node restarts: nothing runs, and what was in memory is gone.
        node.kill_agent();
        kill_first(&node);
        umount2(&node.data("secrets"), MntFlags::MNT_DETACH).unwrap();
        node.start_agent().await;
        let waiting = node.wait_for_process("hello-1", "waiting", |it| {
            let reason = it.reason.as_deref().unwrap_or_default();
            reason.contains("waits for secret password") && reason.contains("503")
        });
        waiting.await;
        node.controller.set_secrets(Some(&all()));
        node.wait_until_healthy("hello-1").await;
        check(&node);
        node.remove_all(2).await;
    });
}

#[test]
fn a_value_goes_with_the_last_process_that_needs_it() {
    on_a_node("", async |node| {
        let value = |version: u64| format!("[[secret]]\nname = \"token\"\nversion = {version}\n");
        node.controller
            .set_secrets(Some(&[("token@9", b"nine"), ("token@10", b"ten")]));
        let processes = [(1, 9), (2, 10)];
        let processes =
            processes.map(|(number, version)| process("hello", number, &value(version)));
        node.desire(1, processes.to_vec()).await;
        for id in ["hello-1", "hello-2"] {
            node.wait_until_healthy(id).await;
        }
        assert_eq!(
            fs::read(inside(&node, "/run/secrets/token")).unwrap(),
            b"nine"
        );
        let names = || {
            let entries = fs::read_dir(node.data("secrets/values")).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["token@10", "token@9"]);
        node.desire(2, processes[1..].to_vec()).await;
        node.wait_for("one process", |report| {
            (report.processes.len() == 1).then_some(())
        })
        .await;
        assert_eq!(names(), ["token@10"]);
        assert!(!node.data("secrets/processes/hello-1").exists());
        node.remove_all(3).await;
    });
}

#[test]
fn processes_that_share_a_secret_start_at_once_with_its_whole_value() {
    on_a_node("", async |mut node| {
        let value = vec![b'x'; 1 << 20];
        node.controller.set_secrets(Some(&[("token@9", &value)]));
        let secret = "memory = \"16MiB\"\n[[secret]]\nname = \"token\"\nversion = 9\n";
        let processes = (1..=8).map(|number| process("hello", number, secret));
        node.desire(1, processes.collect()).await;
        for number in 1..=8 {
            let id = format!("hello-{number}");
            node.wait_until_healthy(&id).await;
            let file = format!("/proc/{}/root/run/secrets/token", node.pid(&id));
            assert!(fs::read(file).unwrap() == value, "{id}");
        }
        assert!(
            !node.logged().contains("keep a secret"),
            "{}",
            node.logged()
        );

        // Files of a process that there is no longer, as after the loss of its record.
        node.kill_agent();
        let stray = node.data("secrets/processes/hello-99");
        fs::create_dir(&stray).unwrap();
        fs::write(stray.join("0"), "x").unwrap();
        node.start_agent().await;
        assert!(!stray.exists());
        node.remove_all(2).await;
    });
}
