//! Crashes, limits, and missing images.

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::Digest,
};

use tucano_oci_runtime::cgroup::Cgroup;
use tucano_testkit::wait_until;

use crate::node::{PATIENCE, on_a_node, process};

#[test]
fn a_crash_loop_backs_off_and_reports_its_exit() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("crash-loop", 1, "")]).await;
        let crashed = |process: &ProcessReport| {
            process.restarts >= 2 && process.state == ProcessState::BackOff
        };
        let process = node
            .wait_for_process("crash-loop-1", "backing off", crashed)
            .await;
        assert_eq!(process.last_exit.unwrap().code, Some(1));
        assert_eq!(process.reason.as_deref(), Some("ended with exit code 1"));
        let kept = node
            .logs("crash-loop-1", "stream=stderr")
            .await
            .text()
            .await
            .unwrap();
        assert!(
            kept.matches("crash-loop begins").count() >= 2,
            "output of every run is kept: {kept}"
        );
        node.remove_all(2).await;
    });
}

#[test]
fn a_process_that_exceeds_its_memory_is_killed_alone_and_reported() {
    on_a_node("", async |node| {
        let hog = "memory = \"32MiB\"\nenv = { HOG = \"now\" }";
        node.desire(
            1,
            vec![process("memory-hog", 1, hog), process("hello", 2, "")],
        )
        .await;
        let killed =
            |process: &ProcessReport| process.last_exit.is_some_and(|exit| exit.oom_killed);
        let process = node
            .wait_for_process("memory-hog-1", "killed for its memory", killed)
            .await;
        assert!(process.reason.unwrap().contains("memory limit"));
        assert_eq!(node.wait_until_healthy("hello-2").await.restarts, 0);
        node.remove_all(2).await;
    });
}

#[test]
fn a_process_that_exceeds_its_disk_limit_is_killed_alone_and_starts_with_an_empty_disk() {
    on_a_node("limits = { disk_interval = \"50ms\" }", async |node| {
        let hog = "user = \"0\"\ndisk = \"16MiB\"\nenv = { HOG = \"now\", HOG_MIB = \"40\" }";
        let unlinked = "user = \"0\"\ndisk = \"16MiB\"\nenv = { HOG = \"now\", HOG_MIB = \"40\", HOG_NAMELESS = \"1\" }";
        let frugal = "user = \"0\"\ndisk = \"64MiB\"\nenv = { HOG = \"now\", HOG_MIB = \"40\" }";
        let processes = vec![
            process("disk-hog", 1, hog),
            process("disk-hog", 2, unlinked),
            process("disk-hog", 3, frugal),
        ];
        node.desire(1, processes).await;
        for id in ["disk-hog-1", "disk-hog-2"] {
            let killed =
                |process: &ProcessReport| process.last_exit.is_some_and(|exit| exit.disk_exceeded);
            let process = node
                .wait_for_process(id, "killed for its disk", killed)
                .await;
            assert!(process.reason.unwrap().contains("disk limit"));
        }
        let measured =
            |process: &ProcessReport| process.disk_used.is_some_and(|used| used.0 > 40 << 20);
        let process = node
            .wait_for_process("disk-hog-3", "its use", measured)
            .await;
        assert_eq!(process.restarts, 0);
        node.remove_all(2).await;
    });
}

#[test]
fn a_missing_image_does_not_delay_other_processes() {
    on_a_node("", async |node| {
        let mut lost = process("hello", 1, "");
        lost.image = Digest::sha256(&"7".repeat(64)).unwrap();
        node.desire(1, vec![lost, process("hello", 2, "")]).await;
        node.wait_until_healthy("hello-2").await;
        let reported = |process: &ProcessReport| {
            let reason = process.reason.as_deref().unwrap_or_default();
            process.state == ProcessState::BackOff
                && reason.contains("the controller does not have it")
        };
        node.wait_for_process("hello-1", "the reason", reported)
            .await;
        node.remove_all(2).await;
    });
}

#[test]
fn an_unknown_user_is_reported_by_name() {
    on_a_node("", async |node| {
        let mut broken = process("hello", 1, "user = \"nobody-of-that-name\"");
        broken.config.concurrency = 1;
        node.desire(1, vec![broken]).await;
        let reported = |process: &ProcessReport| {
            let reason = process.reason.as_deref().unwrap_or_default();
            process.state == ProcessState::BackOff && reason.contains("nobody-of-that-name")
        };
        node.wait_for_process("hello-1", "the reason", reported)
            .await;
        node.remove_all(2).await;
    });
}

#[test]
fn a_process_that_never_answers_is_restarted_after_its_grace() {
    on_a_node("", async |node| {
        // It listens on 8080; the probe connects to 9.
        let mut silent = process(
            "hello",
            1,
            "health = { grace = \"300ms\" }\nenv = { PORT = \"8080\" }\nstop_timeout = \"100ms\"",
        );
        silent.config.port = Some(9);
        node.desire(1, vec![silent]).await;
        let reported = |process: &ProcessReport| {
            process.restarts >= 1
                || process
                    .reason
                    .as_deref()
                    .is_some_and(|reason| reason.contains("not healthy for 300ms"))
        };
        node.wait_for_process("hello-1", "a restart", reported)
            .await;
        node.remove_all(2).await;
    });
}

#[test]
fn unused_layers_and_blobs_are_removed() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let layers = || std::fs::read_dir(node.data("layers")).unwrap().count();
        assert!(layers() > 0);
        node.remove_all(2).await;
        tucano_testkit::wait_until("the layers to be removed", crate::node::PATIENCE, || {
            layers() == 0
        });
    });
}

/// A container is killed when its supervisor ends (prctl(2), PR_SET_PDEATHSIG), unless it resets that. Here it is frozen, which on
/// cgroup v1 defers SIGKILL.
#[test]
fn a_container_without_its_supervisor_is_killed_at_once() {
    on_a_node("", async |node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        let home = node.data("processes/hello-1/home");
        let (container, supervisor) = (node.pid("hello-1"), node.supervisor("hello-1"));
        let cgroup = Cgroup::of(&home).unwrap().unwrap();
        for (controller, directory) in &cgroup.directories {
            match controller.as_str() {
                "freezer" => std::fs::write(directory.join("freezer.state"), "FROZEN").unwrap(),
                "" => std::fs::write(directory.join("cgroup.freeze"), "1").unwrap(),
                _ => {}
            }
        }
        let supervisor = rustix::process::Pid::from_raw(i32::try_from(supervisor).unwrap());
        rustix::process::kill_process(supervisor.unwrap(), rustix::process::Signal::KILL).unwrap();
        wait_until("the container's end", PATIENCE, || {
            !std::path::Path::new(&format!("/proc/{container}")).exists()
        });
        let again = |process: &ProcessReport| {
            process.restarts == 1 && process.state == ProcessState::Healthy
        };
        let process = node
            .wait_for_process("hello-1", "healthy again", again)
            .await;
        let exit = process.last_exit.unwrap();
        assert_eq!((exit.code, exit.signal), (None, None));
        node.remove_all(2).await;
    });
}
