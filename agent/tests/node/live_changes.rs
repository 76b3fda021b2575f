//! Running containers take other limits and probes.

use tucano_api::ids::Revision;
use tucano_oci_runtime::cgroup::{Cgroup, Stats};

use crate::node::{Node, on_a_node, process};

/// Process 1 in a later revision.
fn revised(revision: u64, settings: &str) -> tucano_api::agent::DesiredProcess {
    let mut process = process("hello", 1, settings);
    process.revision = Revision(revision);
    process
}

/// The counters and limits of the container's cgroup.
fn cgroup(node: &Node) -> Stats {
    let home = node.data("processes/hello-1/home");
    Cgroup::of(&home).unwrap().unwrap().stats().unwrap()
}

async fn wait_for_revision(node: &Node, revision: u64) {
    let what = format!("revision {revision}");
    node.wait_for_process("hello-1", &what, |it| it.revision == Revision(revision))
        .await;
}

#[test]
fn limits_change_in_the_cgroup_of_a_running_container_and_outlive_the_agent() {
    on_a_node("", async |mut node| {
        node.desire(
            1,
            vec![process("hello", 1, "memory = \"64MiB\"\npids = 20")],
        )
        .await;
        let before = node.wait_until_healthy("hello-1").await;
        let pid = node.pid("hello-1");
        // Larger, then smaller: on v1 the limits of memory and of memory and swap are written in another order.
        for (revision, mib, pids) in [(2, 200, 30), (3, 48, 10)] {
            let settings = format!("memory = \"{mib}MiB\"\npids = {pids}\ncpus = 0.5");
            node.desire(revision, vec![revised(revision, &settings)])
                .await;
            wait_for_revision(&node, revision).await;
            let stats = cgroup(&node);
            assert_eq!((stats.memory_limit, stats.pids_limit), (mib << 20, pids));
            assert_eq!(node.pid("hello-1"), pid);
        }
        let report = node.wait_until_healthy("hello-1").await;
        assert_eq!((report.restarts, report.node_port), (0, before.node_port));
        assert_eq!(report.reason, None);

        node.kill_agent();
        node.start_agent().await;
        wait_for_revision(&node, 3).await;
        assert_eq!(node.pid("hello-1"), pid);
        assert_eq!(cgroup(&node).memory_limit, 48 << 20);
        node.remove_all(4).await;
    });
}

#[test]
fn a_memory_limit_below_what_is_in_use_is_refused_with_the_figure_and_kills_nothing() {
    on_a_node("", async |node| {
        let settings = "memory = \"200MiB\"\nread_only = true";
        node.desire(1, vec![process("hello", 1, settings)]).await;
        node.wait_until_healthy("hello-1").await;
        let pid = node.pid("hello-1");
        // What a tmpfs holds cannot be reclaimed.
        let fill = format!("head -c 58M /dev/zero > /proc/{pid}/root/tmp/full");
        write_within(&node, &fill);
        assert!(cgroup(&node).memory_used() > 58 << 20);
        let mut desired = revised(2, settings);
        desired.config.memory = tucano_api::units::Bytes::mib(50);
        node.desire(2, vec![desired]).await;
        let report = node
            .wait_for_process("hello-1", "a reason", |it| it.reason.is_some())
            .await;
        let reason = report.reason.unwrap();
        assert!(
            reason.contains("its limits are not changed yet")
                && reason.contains("bytes are in use"),
            "{reason}"
        );
        assert_eq!(cgroup(&node).memory_limit, 200 << 20);
        assert_eq!((node.pid("hello-1"), report.restarts), (pid, 0));
        // The earlier limit again: nothing is outstanding any more.
        node.desire(3, vec![revised(3, settings)]).await;
        wait_for_revision(&node, 3).await;
        node.remove_all(4).await;
    });
}

/// Runs a command whose memory is charged to the container.
fn write_within(node: &Node, command: &str) {
    let home = node.data("processes/hello-1/home");
    let cgroup = Cgroup::of(&home).unwrap().unwrap();
    let enter = cgroup
        .directories
        .iter()
        .map(|(_, directory)| format!("echo $$ > {}/cgroup.procs; ", directory.display()))
        .collect::<String>();
    let status = std::process::Command::new("sh")
        .args(["-ec", &format!("{enter}{command}")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_new_probe_is_used_once_the_process_answers_it() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let pid = node.pid("hello-1");
        let wrong =
            "health = { http = \"/status/500\", interval = \"50ms\" }\nstop_timeout = \"1s\"";
        node.desire(2, vec![revised(2, wrong)]).await;
        let report = node
            .wait_for_process("hello-1", "a reason", |it| it.reason.is_some())
            .await;
        assert_eq!(report.revision, Revision(1));
        assert_eq!(report.state, tucano_api::agent::ProcessState::Healthy);
        let right = "health = { http = \"/healthz\", interval = \"50ms\" }";
        node.desire(3, vec![revised(3, right)]).await;
        wait_for_revision(&node, 3).await;
        assert_eq!(node.pid("hello-1"), pid);
        node.remove_all(4).await;
    });
}
