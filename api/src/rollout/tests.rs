use super::*;
use crate::{
    agent::{Exit, ProcessReport},
    service::ServiceConfig,
    settings::parse,
    state::{ActiveService, ConfiguredService, Pending},
    units::Timestamp,
};

fn name() -> ServiceName {
    "hello".parse().unwrap()
}

fn process(number: u64, state: ProcessState) -> ProcessView {
    let report = serde_json::json!({
        "id": format!("hello-{number}"), "service": "hello", "revision": 2, "state": state, "restarts": 0,
    });
    ProcessView {
        node: "w1".parse().unwrap(),
        current: true,
        routed: state == ProcessState::Healthy,
        draining: false,
        changing: false,
        report: serde_json::from_value(report).unwrap(),
    }
}

fn config(more: &str) -> ServiceConfig {
    let text = format!("name = \"hello\"\nconcurrency = 2\nport = 8080\n{more}");
    parse("x", &text).unwrap()
}

fn view(processes: Vec<ProcessView>) -> ServiceView {
    ServiceView {
        hook: None,
        configured: ConfiguredService {
            name: name(),
            revision: Revision(2),
            image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            config: config(""),
            configured_at: Timestamp(0),
        },
        active: ActiveService {
            wanted: None,
            name: name(),
            configured_service: String::new(),
            healthy: 0,
            processes,
            stopping: Vec::new(),
            runs: Vec::new(),
            pending: Vec::new(),
        },
    }
}

fn progress_of(view: &ServiceView) -> Progress {
    progress(&name(), Some(view), Revision(2))
}

fn exit(code: Option<i32>) -> Exit {
    Exit {
        code,
        signal: None,
        oom_killed: false,
        disk_exceeded: false,
        memory_peak: None,
        at: Timestamp(0),
    }
}

fn crashed(number: u64, restarts: u32) -> ProcessView {
    let mut process = process(number, ProcessState::BackOff);
    process.report.restarts = restarts;
    process.report.last_exit = Some(exit(Some(1)));
    process
}

#[test]
fn a_deploy_is_complete_when_all_processes_are_healthy_and_routed() {
    let healthy = |n| process(n, ProcessState::Healthy);
    assert_eq!(
        progress_of(&view(vec![healthy(1), healthy(2)])),
        Progress::Healthy
    );
    let too_few = progress_of(&view(vec![healthy(1)]));
    let reasons = vec!["1 of 2 processes are placed".to_owned()];
    assert_eq!(too_few, Progress::Waiting(reasons));
    let mut old = healthy(0);
    old.current = false;
    let with_old = progress_of(&view(vec![old, healthy(1), healthy(2)]));
    assert!(matches!(with_old, Progress::Waiting(why) if why[0].contains("earlier revision")));
}

#[test]
fn each_process_that_is_not_healthy_has_its_reason() {
    let mut starting = process(1, ProcessState::Starting);
    starting.report.reason = Some("connection refused".into());
    let mut view = view(vec![starting, crashed(3, 1)]);
    view.active.pending.push(Pending {
        cause: None,
        count: 1,
        reason: "no worker has 256 MiB left".into(),
    });
    let reasons = [
        "hello-1 on w1: starting: connection refused",
        "hello-3 on w1: back_off: ended with exit code 1",
        "1 pending: no worker has 256 MiB left",
    ];
    assert_eq!(
        progress_of(&view),
        Progress::Waiting(reasons.map(str::to_owned).into())
    );
}

#[test]
fn a_crash_loop_ends_the_wait() {
    let one_of_two = view(vec![process(1, ProcessState::Healthy), crashed(2, 3)]);
    assert!(matches!(progress_of(&one_of_two), Progress::Failed(_)));
    let other_starts = view(vec![process(1, ProcessState::Starting), crashed(2, 3)]);
    assert!(matches!(progress_of(&other_starts), Progress::Waiting(_)));
    let may_recover = view(vec![crashed(1, 1), crashed(2, 1)]);
    assert!(matches!(progress_of(&may_recover), Progress::Waiting(_)));
}

/// A rollout replaces one process after another: the first one's crash loop holds it up.
#[test]
fn a_crash_loop_of_the_first_new_process_ends_the_wait() {
    let mut old = process(1, ProcessState::Healthy);
    old.current = false;
    let rollout = view(vec![old, crashed(2, 3)]);
    assert!(matches!(progress_of(&rollout), Progress::Failed(_)));
}

#[test]
fn a_process_that_cannot_be_started_at_all_ends_the_wait() {
    let mut first = process(1, ProcessState::BackOff);
    first.report.reason = Some("exec /nope: No such file or directory".to_owned());
    first.report.attempts = 5;
    assert!(matches!(
        progress_of(&view(vec![first.clone()])),
        Progress::Failed(_)
    ));
    first.report.attempts = 2;
    assert!(matches!(
        progress_of(&view(vec![first])),
        Progress::Waiting(_)
    ));
}

#[test]
fn a_newer_revision_or_a_removal_ends_the_wait() {
    let newer = progress(&name(), Some(&view(Vec::new())), Revision(1));
    assert_eq!(
        newer,
        Progress::Superseded("revision 2 was configured".into())
    );
    let removed = progress(&name(), None, Revision(1));
    assert_eq!(removed, Progress::Superseded("hello was removed".into()));
}

#[test]
fn processes_with_the_same_reason_are_explained_once() {
    let mut other = crashed(4, 3);
    other.report.last_exit = Some(exit(Some(2)));
    let view = view(vec![
        crashed(1, 3),
        crashed(2, 3),
        process(3, ProcessState::Healthy),
        other,
    ]);
    let ids = failing(&view)
        .into_iter()
        .map(|process| process.report.id.number());
    assert_eq!(ids.collect::<Vec<_>>(), [1, 4]);
}

/// Each cause, and what is advised.
#[test]
fn hints_by_cause() {
    let report = |state, change: &dyn Fn(&mut ProcessReport)| {
        let mut report = process(1, state).report;
        change(&mut report);
        report
    };
    let ended = |exit: Exit| {
        report(ProcessState::BackOff, &move |report| {
            report.last_exit = Some(exit)
        })
    };
    let listens = |addresses: &[&str]| {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        report(ProcessState::Starting, &move |report| {
            report.reason = Some("port 8080 does not answer: Connection refused".to_owned());
            report.listening = Some(addresses.clone());
        })
    };
    let says = |reason: &str| {
        report(ProcessState::BackOff, &move |report| {
            report.reason = Some(reason.to_owned())
        })
    };
    let answers = report(ProcessState::Starting, &|report| {
        report.reason = Some("GET /healthz answered with status 404".to_owned());
    });
    let cases: [(&str, &str, ProcessReport, &str); 16] = [
        (
            "out of memory",
            "",
            ended(Exit {
                oom_killed: true,
                ..exit(None)
            }),
            "",
        ),
        (
            "disk",
            "",
            ended(Exit {
                disk_exceeded: true,
                ..exit(None)
            }),
            "",
        ),
        ("exit code 0", "", ended(exit(Some(0))), ""),
        ("exit code 126", "", ended(exit(Some(126))), ""),
        ("exit code 127", "", ended(exit(Some(127))), ""),
        (
            "missing program",
            "",
            says("cannot run /nope: No such file or directory"),
            "",
        ),
        (
            "another architecture",
            "",
            says("cannot run /app: Exec format error"),
            "",
        ),
        (
            "another port",
            "",
            listens(&["0.0.0.0:3000", "[::1]:9000"]),
            "",
        ),
        ("loopback", "", listens(&["127.0.0.1:8080"]), ""),
        ("no port", "", listens(&[]), ""),
        ("the right port", "", listens(&["[::]:8080"]), ""),
        ("status", "health = { http = \"/healthz\" }", answers, ""),
        (
            "capabilities",
            "",
            ended(exit(Some(1))),
            "chown(\"/var/cache/nginx\") failed (1: Operation not permitted)",
        ),
        (
            "capabilities are granted",
            "caps = \"web\"",
            ended(exit(Some(1))),
            "chown: Operation not permitted",
        ),
        (
            "read-only",
            "read_only = true",
            ended(exit(Some(1))),
            "open /var/log/app: Read-only file system",
        ),
        (
            "space and port",
            "",
            ended(exit(Some(1))),
            "No space left on device\nbind: Address already in use",
        ),
    ];
    let all = cases.map(|(cause, more, report, log)| {
        let log: Vec<_> = log.lines().map(str::to_owned).collect();
        let hints = hints(&config(more), &report, &log);
        format!(
            "{cause}:\n{}",
            hints
                .iter()
                .map(|hint| format!("  {hint}\n"))
                .collect::<String>()
        )
    });
    insta::assert_snapshot!(all.join(""));
}
