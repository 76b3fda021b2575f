use super::*;

/// A service with these processes, each a node and a state.
pub(crate) fn service(processes: &[(&str, &str)]) -> ServiceView {
    let views: Vec<_> = processes
        .iter()
        .zip(1..)
        .map(|((node, state), number)| process(number, node, state))
        .collect();
    let digest = format!("sha256:{}", "ab".repeat(32));
    serde_json::from_value(serde_json::json!({
        "configured": {
            "name": "hello", "revision": 3, "image": digest, "configured_at": 0,
            "config": { "name": "hello", "concurrency": 2, "port": 8080 },
        },
        "active": {
            "name": "hello", "configured_service": "/v1/configured_services/hello",
            "healthy": processes.iter().filter(|(_, state)| *state == "healthy").count(),
            "processes": views, "pending": [],
        },
    }))
    .unwrap()
}

fn process(number: u64, node: &str, state: &str) -> serde_json::Value {
    serde_json::json!({
        "node": node, "current": true, "routed": state == "healthy", "draining": false,
        "id": format!("hello-{number}"), "service": "hello", "revision": 3, "state": state, "restarts": 0,
    })
}

#[test]
fn each_change_is_reported_once() {
    let mut log = ProgressLog::default();
    let before = service(&[("w1", "starting"), ("w2", "starting")]);
    assert_eq!(
        log.changes(&before),
        ["hello-1 on w1 is starting", "hello-2 on w2 is starting"]
    );
    assert!(log.changes(&before).is_empty());
    let after = service(&[("w1", "healthy")]);
    assert_eq!(
        log.changes(&after),
        ["hello-2 is gone", "hello-1 on w1 is healthy"]
    );
}

#[test]
fn processes_that_were_told_to_end_are_not_waited_for() {
    let mut view = service(&[("w1", "healthy"), ("w2", "healthy"), ("w3", "healthy")]);
    assert!(!has_leftovers(&view));
    view.active.processes[2].current = false;
    assert!(has_leftovers(&view));
    view.active.processes[2].report.state = ProcessState::Stopping;
    assert!(!has_leftovers(&view));
}

#[test]
fn the_failure_message_names_each_process_and_its_reason() {
    let mut view = service(&[("w1", "healthy"), ("w2", "back_off"), ("w3", "healthy")]);
    view.active.processes[1].report.reason = Some("ended with exit code 1".to_owned());
    view.active.processes[2].current = false;
    let expected = "1 of 2 processes of hello are healthy after 90s: hello-2 on w2 is backing off (ended with exit code 1); \
                    1 process that is to be replaced still serves requests";
    assert_eq!(failure_message(&view, "after 90s"), expected);
}
