use tucano_api::{
    agent::{Exit, ProcessMetrics},
    jobs::Trigger,
    secrets::{SecretUser, SecretView},
    state::{AliveNode, Pending, RunProcess},
};

use super::*;
use crate::watch::tests::service;

const PLAIN: Style = Style {
    colored: false,
    width: None,
    now: Timestamp(3_700_000),
};

/// At several widths of the terminal, and without one.
fn at_widths(table: impl Fn(Style) -> String) -> String {
    let widths = [None, Some(100), Some(80), Some(40)];
    let shown = widths.map(|width| {
        let style = Style { width, ..PLAIN };
        let width = width.map_or("no terminal".to_owned(), |width| format!("{width} columns"));
        format!("--- {width}\n{}", table(style))
    });
    shown.join("\n")
}

fn two_services() -> [ServiceView; 2] {
    let mut first = service(&[("w1", "healthy"), ("w2", "back_off"), ("w3", "healthy")]);
    let [healthy, crashing, old] = &mut first.active.processes[..] else {
        panic!("there are three processes");
    };
    healthy.report.started_at = Some(Timestamp(3_600_000));
    healthy.report.node_port = Some(20_000);
    healthy.report.revision = Revision(1);
    healthy.report.metrics = Some(ProcessMetrics {
        memory_current: Bytes::mib(12),
        memory_limit: Bytes::mib(64),
        ..ProcessMetrics::default()
    });
    crashing.report.restarts = 4;
    crashing.report.relaxed = vec!["caps=web".into(), "no user namespace".into()];
    crashing.report.last_exit = Some(Exit {
        code: Some(137),
        signal: None,
        oom_killed: false,
        disk_exceeded: false,
        memory_peak: None,
        at: Timestamp(0),
    });
    old.current = false;
    old.draining = true;
    old.report.revision = Revision(2);
    first.active.pending.push(Pending {
        cause: None,
        count: 2,
        reason: "no worker has 256 MiB left".to_owned(),
    });
    first.configured.config.hosts = vec!["a.example".to_owned(), "b.example".to_owned()];
    first.configured.config.needs = vec!["cache".parse().unwrap(), "db".parse().unwrap()];
    let mut second = service(&[("w1", "starting"), ("w2", "unhealthy")]);
    second.active.processes[1].report.reason =
        Some("GET /healthz was answered with 503 three times in a row".to_owned());
    [first, second]
}

#[test]
fn processes_at_several_widths() {
    let services = two_services();
    insta::assert_snapshot!(at_widths(|style| processes(&services, style)));
}

#[test]
fn processes_of_runs_at_several_widths() {
    let mut job = service(&[("w1", "starting"), ("w2", "stopping")]);
    job.configured.name = "nightly".parse().unwrap();
    let of_job = std::mem::take(&mut job.active.processes);
    let triggers = [
        Trigger::Schedule {
            tick: Timestamp(0),
            wall_time: "2026-11-30 03:00 America/Sao_Paulo".to_owned(),
        },
        Trigger::Before,
    ];
    let runs = of_job.into_iter().zip(triggers).zip(1..);
    job.active.runs = runs
        .map(|((process, trigger), run)| RunProcess {
            run,
            trigger,
            process,
        })
        .collect();
    let all = [two_services()[1].clone(), job];
    insta::assert_snapshot!(at_widths(|style| processes(&all, style)));
}

#[test]
fn paths_at_several_widths() {
    let named = |name: &str, needs: &[&str]| {
        let mut view = service(&[("w1", "healthy")]);
        view.configured.name = name.parse().unwrap();
        view.configured.config.name = name.parse().unwrap();
        view.configured.config.needs = needs.iter().map(|it| it.parse().unwrap()).collect();
        view
    };
    let all = [
        named("api", &["cache", "api"]),
        named("cache", &[]),
        named("web", &["api", "cache"]),
        named("worker", &["cache"]),
    ];
    insta::assert_snapshot!(at_widths(|style| paths(&all[0], &all, style)));
}

#[test]
fn services_at_several_widths() {
    let all = two_services();
    insta::assert_snapshot!(at_widths(|style| services(&all, style)));
}

#[test]
fn secrets_at_several_widths() {
    let user = |service: &str, current| SecretUser {
        service: service.parse().unwrap(),
        revision: Revision(2),
        current,
        version: 1,
    };
    let secret = |name: &str, users| SecretView {
        name: name.parse().unwrap(),
        version: 1,
        set_at: Timestamp(100_000),
        users,
    };
    let all = [
        secret("db-password", vec![user("web", true), user("db", false)]),
        secret("unused", Vec::new()),
    ];
    insta::assert_snapshot!(at_widths(|style| secrets(&all, style)));
}

#[test]
fn revisions_at_several_widths() {
    let all = two_services().map(|view| view.configured);
    insta::assert_snapshot!(at_widths(|style| revisions(&all, style)));
}

#[test]
fn nodes_at_several_widths() {
    let node = |name: &str, condition| NodeView {
        labels: Default::default(),
        hold: None,
        name: name.parse().unwrap(),
        ip: [10, 0, 0, 1].into(),
        condition,
        since: Timestamp(0),
        reason: None,
        alive: None,
    };
    let mut alive = node("w1", NodeCondition::Alive);
    alive.alive = Some(AliveNode {
        architecture: String::new(),
        reserved_millicpus: 0,
        devices: [(
            "nvidia.com/gpu".parse().unwrap(),
            DevicesOfKind { all: 2, free: 1 },
        )]
        .into(),
        name: alive.name.clone(),
        ip: alive.ip,
        reported_at: Timestamp(0),
        generation_desired: Default::default(),
        generation_seen: Default::default(),
        version: "0.1.0".to_owned(),
        processes: 2,
        metrics: NodeMetrics {
            cpu_used: 0.254,
            memory_total: Bytes::mib(2048),
            memory_available: Bytes::mib(1536),
            disk_total: Bytes(100 << 30),
            disk_available: Bytes(75 << 30),
            ..NodeMetrics::default()
        },
        notes: vec!["the kernel provides no pressure information (PSI)".to_owned()],
        volumes: Some(VolumesOfNode {
            size: Bytes::mib(1024),
            used: Bytes::mib(128),
            capacity: Bytes::mib(65536),
            enforcement: Enforcement::ProjectQuota,
        }),
    });
    let mut dead = node("w2", NodeCondition::Dead);
    dead.reason = Some("3 restarts failed: the command ended with exit code 255".to_owned());
    let all = [
        node("ctl", NodeCondition::Ctl),
        alive,
        dead,
        node("w3", NodeCondition::Missing),
        node("w4", NodeCondition::Unknown),
    ];
    insta::assert_snapshot!(at_widths(|style| nodes(&all, style)));
}

#[test]
fn empty_tables_have_their_header() {
    let tables = [
        processes(&[], PLAIN),
        services(&[], PLAIN),
        revisions(&[], PLAIN),
        secrets(&[], PLAIN),
        nodes(&[], PLAIN),
    ];
    insta::assert_snapshot!(tables.join("\n"));
}

/// A scale or a new host is a revision that replaces no process.
#[test]
fn a_current_process_shows_the_revision_that_services_shows() {
    let mut view = service(&[("w1", "healthy")]);
    view.active.processes[0].report.revision = Revision(1);
    let revision = |table: String| {
        let row = table.lines().nth(1).unwrap().to_owned();
        row.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let process = revision(processes(std::slice::from_ref(&view), PLAIN));
    let of_service = revision(services(&[view], PLAIN));
    assert_eq!((process[3].as_str(), of_service[1].as_str()), ("3", "3"));
}

#[test]
fn only_terminals_get_colours() {
    let view = service(&[("w1", "healthy")]);
    let colored = Style {
        colored: true,
        ..PLAIN
    };
    assert!(processes(std::slice::from_ref(&view), colored).contains("\u{1b}["));
    assert!(!processes(&[view], PLAIN).contains('\u{1b}'));
}

#[test]
fn ages_have_two_units() {
    for (seconds, text) in [(5, "5s"), (65, "1m5s"), (7260, "2h1m"), (180_000, "2d2h")] {
        assert_eq!(short(Span::secs(seconds)), text);
    }
}

#[test]
fn volumes_are_shown_with_their_state_and_what_is_wrong() {
    let volume = |slot: u32, state: serde_json::Value| {
        let mut view = serde_json::json!({
            "id": format!("db/data/{slot}"), "instance": slot, "node": "w1", "size": 64 << 20,
            "configured": slot != 2,
        });
        let both = view.as_object_mut().unwrap();
        both.extend(state.as_object().unwrap().clone());
        serde_json::from_value::<VolumeView>(view).unwrap()
    };
    let volumes = [
        volume(
            1,
            serde_json::json!({ "state": "in_use", "used": 12 << 20, "enforcement": "loop_file", "process": "db-1" }),
        ),
        volume(
            2,
            serde_json::json!({ "state": "idle", "enforcement": "project_quota" }),
        ),
        volume(
            3,
            serde_json::json!({ "state": "away", "since": 3_600_000 }),
        ),
        volume(
            4,
            serde_json::json!({ "state": "missing", "problem": "it is not where it was" }),
        ),
        volume(5, serde_json::json!({ "state": "orphan" })),
    ];
    insta::assert_snapshot!(at_widths(|style| super::volumes(&volumes, style)));
}
