//! Volumes that are moved to other workers: at every moment there is one whole copy, and it has all that was acknowledged.

use std::{
    path::PathBuf,
    process::Output,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use tucano_testkit::needs;
use tucano_tests::{CLUSTER, Cluster, Options};

use crate::exec::{Shell, TOOLS, with_a_shell};

const SERVICE: &str = "name = \"hello\"\nconcurrency = 1\nport = 8080\nmemory = \"64MiB\"\nuser = \"0\"\n\
    [[volume]]\nname = \"data\"\npath = \"/var/data\"\nsize = \"128MiB\"\n";
const VOLUME: &str = "hello/data/1";
/// Content with its metadata, as the container sees it.
const SUM: &str = "cd /var/data && busybox find . -type f | busybox sort | busybox xargs busybox sha256sum | busybox sha256sum; \
    busybox find . | busybox sort | busybox xargs busybox stat -c '%n %a %u %g %s %Y %F %N'";

fn start() -> Shell {
    let cluster = Cluster::start(&Options::default());
    cluster.deploy_healthy(SERVICE, &with_a_shell(&cluster));
    Shell(cluster)
}

/// The worker of the service's process, once it is healthy.
fn worker(cluster: &Cluster) -> usize {
    let processes = cluster.wait_for_healthy("hello", 1);
    let name = processes[0].node.to_string();
    name.trim_start_matches('w').parse::<usize>().unwrap() - 1
}

fn name(index: usize) -> String {
    format!("w{}", index + 1)
}

fn move_to(shell: &Shell, to: usize, more: &[&str]) -> Output {
    let to = name(to);
    let words = [&["volume", "move", VOLUME, &to], more].concat();
    shell.tucano(&words).output().unwrap()
}

/// What a script prints in the container, once it succeeds.
fn output(shell: &Shell, script: &str) -> String {
    shell.0.wait(script, || {
        let said = shell.exec("hello", script, b"");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        said.status.success().then_some(text)
    })
}

/// The directory of the volume on a worker.
fn directory(shell: &Shell, index: usize) -> PathBuf {
    let volumes = shell.0.agent_data(index).join("volumes");
    volumes.join("hello.data.1")
}

/// The workers that have the volume: one, or two until the earlier copy is removed.
fn copies(shell: &Shell) -> Vec<usize> {
    let all = 0..3;
    all.filter(|index| directory(shell, *index).join("image.ext4").exists())
        .collect()
}

/// Ends the writes when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_volume_moves_under_writes_with_every_acknowledged_row() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let shell = start();
    let from = worker(&shell.0);
    let to = (from + 1) % 3;
    output(
        &shell,
        "cd /var/data && busybox mkdir -p a/b && busybox dd if=/dev/urandom of=a/b/large bs=1M count=24 2>/dev/null \
        && busybox ln -f a/b/large other && busybox ln -sf /nowhere link && busybox chmod 751 a/b && busybox sync",
    );
    let before = output(&shell, SUM);
    let (rows, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also where a wait fails.
        let _over = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let next = rows.load(Ordering::Relaxed) + 1;
                let script = format!("echo {next} >> /var/data/rows && busybox sync");
                if shell.exec("hello", &script, b"").status.success() {
                    rows.store(next, Ordering::Relaxed);
                }
            }
        });
        shell.0.wait("some rows", || {
            (rows.load(Ordering::Relaxed) > 3).then_some(())
        });
        let moved = move_to(&shell, to, &["--json"]);
        let later = rows.load(Ordering::Relaxed) + 3;
        shell.0.wait("more rows", || {
            (rows.load(Ordering::Relaxed) > later).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(moved.status.success(), "{moved:?}");
        let said = String::from_utf8_lossy(&moved.stderr);
        assert!(said.contains(&format!("moving to {}", name(to))), "{said}");
    });
    assert_eq!(worker(&shell.0), to);
    assert_eq!(copies(&shell), [to], "the earlier copy is removed");
    let present = output(&shell, "busybox cat /var/data/rows");
    let present: Vec<u32> = present.lines().map(|line| line.parse().unwrap()).collect();
    for row in 1..=rows.load(Ordering::Relaxed) {
        assert!(present.contains(&row), "{row} is missing: {present:?}");
    }
    output(&shell, "busybox rm /var/data/rows");
    let after = output(&shell, SUM);
    let without_root = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with(". "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without_root(&after), without_root(&before));

    // Refused with the reason, and another exit code than that of an unknown volume.
    let there = move_to(&shell, to, &[]);
    let said = String::from_utf8_lossy(&there.stderr).into_owned();
    assert!(said.contains("is on") && said.contains("already"), "{said}");
    let unknown = shell
        .tucano(&["volume", "move", "hello/other/1", "w1"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(7), "{unknown:?}");
    assert_ne!(there.status.code(), Some(7), "{there:?}");
}

#[test]
fn an_agent_that_is_killed_at_any_point_leaves_one_whole_copy_and_goes_on() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let mut shell = start();
    let large =
        "busybox dd if=/dev/urandom of=/var/data/large bs=1M count=24 2>/dev/null && busybox sync";
    output(&shell, large);
    let content = output(&shell, SUM);
    for point in ["manifest", "half", "compare", "whole", "install", "record"] {
        let from = worker(&shell.0);
        let to = (from + 1) % 3;
        shell.0.kill_agent(to);
        shell
            .0
            .start_agent_with(to, &[("TUCANO_TEST_KILL_AT", point)]);
        shell.0.wait("the move", || {
            let said = move_to(&shell, to, &["--no-wait"]);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            (said.status.success() || text.contains("is being moved")).then_some(())
        });
        shell.0.wait_for_agents_end(to);
        let expected = if point == "record" {
            vec![from, to]
        } else {
            vec![from]
        };
        let mut present = copies(&shell);
        present.sort_by_key(|index| *index != from);
        assert_eq!(present, expected, "{point}");
        if point == "half" {
            // And that of the worker that has it.
            shell.0.kill_agent(from);
            shell.0.start_agent(from);
        }
        shell.0.start_agent(to);
        shell
            .0
            .wait(&format!("the volume on the other worker: {point}"), || {
                // A worker that was away too long has the move given up.
                let said = move_to(&shell, to, &["--no-wait"]);
                let text = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(
                    copies(&shell).contains(&from) || copies(&shell).contains(&to),
                    "{point}"
                );
                (text.contains("already") && copies(&shell) == [to]).then_some(())
            });
        assert_eq!(worker(&shell.0), to, "{point}");
        assert_eq!(output(&shell, SUM), content, "{point}");
    }
}
