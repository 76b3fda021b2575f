use super::*;
use crate::config_mgr::{RestartCommand, tests::minimal};

async fn outcome(command: &str, more: &str) -> Result<(), String> {
    let config = minimal(more);
    let worker = WorkerNode {
        labels: Default::default(),
        restart: Some(RestartCommand::Shell(command.to_owned())),
        ..config.topology.workers[0].clone()
    };
    run(&worker, &config).await
}

#[tokio::test]
async fn a_command_gets_its_node_in_the_environment() {
    let check = "test $TUCANO_NODE = w1 && test $TUCANO_NODE_IP = 127.0.0.11";
    assert_eq!(outcome(check, "").await, Ok(()));
}

#[tokio::test]
async fn a_failing_command_is_reported_with_the_end_of_its_output() {
    for (streams, last) in [
        ("seq 100000; echo no route >&2", "no route"),
        ("echo no route; seq 100000 >&2", "100000"),
    ] {
        let error = outcome(&format!("{streams}; exit 3"), "")
            .await
            .unwrap_err();
        assert!(
            error.starts_with("exit status: 3: ") && error.contains("no route"),
            "{error}"
        );
        assert!(error.ends_with(last), "{error}");
        assert!(error.len() < 1100, "{}", error.len());
    }
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let command = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
    let error = outcome(&command, "restart_timeout = \"500ms\"")
        .await
        .unwrap_err();
    assert!(error.contains("did not end within 500ms"), "{error}");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    tucano_testkit::wait_until("the child's end", Duration::from_secs(10), || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(" Z "))
    });
}

#[tokio::test]
async fn background_children_do_not_delay_the_result() {
    assert_eq!(
        outcome("sleep 5 & exit 0", "restart_timeout = \"4s\"").await,
        Ok(())
    );
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let config = minimal("");
    let worker = WorkerNode {
        labels: Default::default(),
        restart: Some(RestartCommand::List(vec!["/no/such/program".into()])),
        ..config.topology.workers[0].clone()
    };
    let error = run(&worker, &config).await.unwrap_err();
    assert!(error.contains("/no/such/program"), "{error}");
}
