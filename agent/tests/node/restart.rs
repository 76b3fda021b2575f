//! Processes outlive their agent, and the next one adopts them.

use tucano_api::agent::ProcessState;

use crate::node::{Node, on_a_node, process};

/// Kills the first process of hello-1's container, and waits until its supervisor has recorded the exit.
fn end_process(node: &Node) {
    let pid = i32::try_from(node.pid("hello-1")).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let exit = node.data("processes/hello-1/home/exit.json");
    tucano_testkit::wait_until("the exit on disk", crate::node::PATIENCE, || exit.exists());
}

#[test]
fn containers_outlive_a_killed_agent_and_the_next_one_adopts_them() {
    on_a_node("", async |mut node| {
        node.desire(1, vec![process("hello", 1, ""), process("hello", 2, "")])
            .await;
        let first = node.wait_until_healthy("hello-1").await;
        node.wait_until_healthy("hello-2").await;
        let pids = (node.pid("hello-1"), node.pid("hello-2"));
        node.kill_agent();
        assert!(
            node.get(&first, "/").await.unwrap().contains("hello-1"),
            "it answers without an agent"
        );

        node.start_agent().await;
        let report = node.controller.last_report().unwrap();
        let states: Vec<_> = report
            .processes
            .iter()
            .map(|process| process.state)
            .collect();
        assert_eq!(
            states,
            [ProcessState::Healthy; 2],
            "what was healthy is never reported otherwise"
        );
        let again = node.wait_until_healthy("hello-1").await;
        assert_eq!((again.node_port, again.restarts), (first.node_port, 0));
        assert_eq!((node.pid("hello-1"), node.pid("hello-2")), pids);
        assert!(node.get(&again, "/").await.unwrap().contains("hello-1"));
        node.remove_all(2).await;
    });
}

#[test]
fn sigterm_ends_the_agent_but_not_the_containers() {
    on_a_node("", async |mut node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        let running = node.wait_until_healthy("hello-1").await;
        assert_eq!(node.end_agent(), Some(0));
        assert!(node.get(&running, "/").await.is_ok());
        node.start_agent().await;
        node.remove_all(2).await;
    });
}

#[test]
fn an_agent_survives_a_broken_log_pipe_and_logs_plain_text_to_a_file() {
    on_a_node("", async |mut node| {
        assert!(node.logged().contains("the agent is ready"));
        assert!(!node.logged().contains('\u{1b}'), "{}", node.logged());
        node.end_agent();
        node.start_agent_with_broken_log().await;
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        node.remove_all(2).await;
        assert_eq!(node.end_agent(), Some(0));
    });
}

#[test]
fn the_next_agent_reports_an_exit_that_no_agent_saw() {
    on_a_node("", async |mut node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        let running = node.wait_until_healthy("hello-1").await;
        node.kill_agent();
        assert!(node.get(&running, "/crash").await.is_err());
        let exit = node.data("processes/hello-1/home/exit.json");
        tucano_testkit::wait_until("the exit on disk", crate::node::PATIENCE, || exit.exists());
        node.start_agent().await;
        let reported = |process: &tucano_api::agent::ProcessReport| process.last_exit.is_some();
        let process = node.wait_for_process("hello-1", "its exit", reported).await;
        assert_eq!(process.last_exit.unwrap().code, Some(3));
        assert_eq!(node.wait_until_healthy("hello-1").await.restarts, 1);
        node.remove_all(2).await;
    });
}

#[test]
fn processes_of_an_outdated_set_are_not_started_again() {
    on_a_node("controller_wait = \"60s\"", async |mut node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        node.kill_agent();
        end_process(&node);
        // Meanwhile the process was placed on another node: the controller announces a newer set.
        node.controller.announce(2);
        node.start_agent().await;
        let waits = |report: &tucano_api::agent::NodeReport| {
            let announced = report.notes.iter().any(|note| note.contains("announced"));
            announced.then(|| report.processes[0].state)
        };
        assert_eq!(
            node.wait_for("the agent to wait", waits).await,
            ProcessState::BackOff
        );
        node.remove_all(2).await;
        assert!(!node.logged().contains("restarts: 1"));
    });
}

#[test]
fn the_stored_set_runs_without_a_controller() {
    on_a_node("controller_wait = \"300ms\"", async |mut node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        node.kill_agent();
        end_process(&node);
        // The announced generation never arrives; the wait for it is limited.
        node.controller.announce(9);
        node.start_agent().await;
        let process = node.wait_until_healthy("hello-1").await;
        assert_eq!(process.restarts, 1);
        node.controller.announce(1);
        node.remove_all(10).await;
    });
}

#[test]
fn a_second_agent_with_the_same_data_directory_is_refused() {
    on_a_node("", async |node| {
        let status = node.spawn_agent().wait().unwrap();
        assert_eq!(status.code(), Some(1));
        let logged = node.logged();
        assert!(logged.contains("another agent already runs"), "{logged}");
    });
}

#[test]
fn prepared_networks_vanish_with_a_killed_agent_and_those_in_use_stay() {
    on_a_node("[limits]\nready_networks = 3", async |mut node| {
        let ports = || {
            let shown = crate::node::output("ip", &["-o", "link", "show", "master", "tucano0"]);
            shown.lines().count()
        };
        let ready = || ports() == 4;
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        tucano_testkit::wait_until("three that are ready", crate::node::PATIENCE, ready);
        node.kill_agent();
        node.start_agent().await;
        let adopted = node.wait_until_healthy("hello-1").await;
        // Removed by the kernel or by the agent.
        let gone = || ports() == 1;
        tucano_testkit::wait_until("the end of those", crate::node::PATIENCE, gone);
        let answer = node.get(&adopted, "/").await.unwrap();
        assert!(answer.contains("process=hello-1 "), "{answer}");
        // The next start prepares as many again, with other addresses than the running one.
        node.desire(2, vec![process("hello", 1, ""), process("hello", 2, "")])
            .await;
        node.wait_until_healthy("hello-2").await;
        let ready = || ports() == 5;
        tucano_testkit::wait_until("three that are ready", crate::node::PATIENCE, ready);
        node.remove_all(3).await;
    });
}

#[test]
fn prepared_supervisors_end_with_a_killed_agent_and_are_replaced() {
    on_a_node("[limits]\nready_supervisors = 3", async |mut node| {
        let until = |number: usize, node: &Node| {
            let ready = || node.ready_supervisors().len() == number;
            tucano_testkit::wait_until("those that are ready", crate::node::PATIENCE, ready);
        };
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        until(3, &node);
        node.kill_agent();
        until(0, &node);
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        node.desire(2, vec![process("hello", 1, ""), process("hello", 2, "")])
            .await;
        node.wait_until_healthy("hello-2").await;
        until(3, &node);
        let ready = node.ready_supervisors();
        node.desire(
            3,
            (1..4).map(|number| process("hello", number, "")).collect(),
        )
        .await;
        node.wait_until_healthy("hello-3").await;
        assert!(ready.contains(&node.supervisor("hello-3")));
        until(3, &node);
        node.remove_all(4).await;
    });
}

#[test]
fn leftovers_of_a_killed_agent_are_removed() {
    on_a_node("", async |mut node| {
        node.desire(1, vec![process("hello", 1, "")]).await;
        node.wait_until_healthy("hello-1").await;
        node.kill_agent();
        std::fs::create_dir_all(node.data("processes/stray-7/home")).unwrap();
        std::fs::create_dir_all(node.data("processes/.unfinished")).unwrap();
        let arguments = [
            "link",
            "add",
            "tudeadbeef",
            "type",
            "veth",
            "peer",
            "name",
            "peer0",
        ];
        assert!(
            std::process::Command::new("ip")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
        let arguments = ["link", "set", "tudeadbeef", "master", "tucano0"];
        assert!(
            std::process::Command::new("ip")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
        node.start_agent().await;
        node.wait_until_healthy("hello-1").await;
        let links = crate::node::output("ip", &["-o", "link", "show"]);
        assert!(!links.contains("tudeadbeef"), "{links}");
        assert!(
            !node.data("processes/stray-7").exists()
                && !node.data("processes/.unfinished").exists()
        );
        node.remove_all(2).await;
    });
}
