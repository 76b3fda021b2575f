//! Jobs: runs end, are retried, stopped, and never begun again.

use tucano_api::{
    agent::ProcessState,
    ids::{Epoch, Revision},
    jobs::{AttemptEnd, Outcome, Run, Trigger},
    service::{Overlap, ServiceConfig},
    state::{AlertKind, NodeCondition},
    units::{Span, Timestamp},
};
use tucano_planner::Event;

use tucano_simulator::{Options, START, Sim, config, image, job, name, node, of_kind, settings};

fn request(sim: &mut Sim, service: &str, command: Option<&[&str]>) -> u64 {
    let number = sim.cluster().next_run(&name(service));
    let command = command.map(|words| words.iter().map(|it| (*it).to_owned()).collect());
    sim.event(Event::RunRequested {
        service: name(service),
        command,
    });
    number
}

fn run(sim: &Sim, service: &str, number: u64) -> Run {
    sim.cluster().run(&name(service), number).unwrap()
}

fn until_ended(sim: &mut Sim, service: &str, number: u64) -> Run {
    sim.until("the run has ended", |sim| {
        !run(sim, service, number).is_active()
    });
    run(sim, service, number)
}

fn until_started(sim: &mut Sim, service: &str, number: u64) -> Run {
    sim.until("all of it was started", |sim| {
        let run = run(sim, service, number);
        run.active().next().is_some() && run.active().all(|it| it.started_at.is_some())
    });
    run(sim, service, number)
}

/// How often processes of runs were started, on all workers.
fn starts(sim: &Sim) -> u32 {
    let agents = sim.agents.values();
    agents.flat_map(|agent| agent.run_starts.values()).sum()
}

fn scheduled(schedule: &str, overlap: Overlap) -> ServiceConfig {
    ServiceConfig {
        schedule: Some(schedule.to_owned()),
        overlap: Some(overlap),
        ..job("j")
    }
}

#[test]
fn a_run_ends_with_its_process_and_leaves_nothing_behind() {
    let mut sim = Sim::new(2);
    sim.deploy(job("j"));
    assert_eq!(starts(&sim), 0, "it runs when it is asked to");
    let number = request(&mut sim, "j", None);
    let run = until_ended(&mut sim, "j", number);
    assert_eq!((run.outcome, run.failures), (Some(Outcome::Succeeded), 0));
    sim.run(Span::secs(10));
    assert_eq!(starts(&sim), 1);
    assert!(sim.agents.values().all(|agent| agent.containers.is_empty()));
    assert!(sim.routed("j").is_empty() && sim.cluster().routes().is_empty());
}

#[test]
fn its_processes_are_shown_as_long_as_they_exist() {
    let mut sim = Sim::new(2);
    sim.deploy(job("j"));
    let number = request(&mut sim, "j", None);
    let run = until_started(&mut sim, "j", number);
    let active = sim.service("j").active;
    assert!(active.processes.is_empty() && active.healthy == 0);
    let [shown] = &active.runs[..] else {
        panic!("{:?}", active.runs);
    };
    assert_eq!((shown.run, &shown.trigger), (number, &Trigger::Request));
    assert_eq!(shown.process.report.id, run.attempts[0].process);
    assert_eq!(shown.process.node, run.attempts[0].node);
    sim.event(Event::RunStopped {
        service: name("j"),
        number,
    });
    until_ended(&mut sim, "j", number);
    assert_eq!(sim.service("j").active.runs, []);
}

#[test]
fn one_for_a_revision_is_one_that_has_succeeded_or_goes_on() {
    let mut sim = Sim::new(2);
    let of_revision = |sim: &Sim| sim.cluster().run_of_revision(&name("j"));
    sim.deploy(job("j"));
    assert_eq!(of_revision(&sim), None);
    let command = request(&mut sim, "j", Some(&["other"]));
    until_ended(&mut sim, "j", command);
    assert_eq!(of_revision(&sim), None, "another command is not the job's");
    sim.workloads.crashing.insert(image(1));
    let failed = request(&mut sim, "j", None);
    assert_eq!(of_revision(&sim), Some(failed), "it goes on");
    until_ended(&mut sim, "j", failed);
    assert_eq!(of_revision(&sim), None, "it has failed");
    sim.workloads.crashing.clear();
    let succeeded = request(&mut sim, "j", None);
    until_ended(&mut sim, "j", succeeded);
    assert_eq!(of_revision(&sim), Some(succeeded));
    sim.restart_controller();
    sim.run(Span::secs(5));
    assert_eq!(of_revision(&sim), Some(succeeded));
    sim.deploy_image(job("j"), 2);
    assert_eq!(of_revision(&sim), None, "another revision");
}

#[test]
fn what_fails_is_retried_with_pauses_and_no_more_often_than_said() {
    let mut sim = Sim::new(2);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(ServiceConfig {
        retries: Some(2),
        ..job("j")
    });
    let number = request(&mut sim, "j", None);
    let run = until_ended(&mut sim, "j", number);
    assert_eq!(run.outcome, Some(Outcome::Failed));
    assert_eq!((run.failures, starts(&sim), run.code()), (3, 3, 1));
    assert_eq!(run.describe(), "failed: ended with exit code 1");
    let pauses: Vec<u64> = run
        .attempts
        .windows(2)
        .map(|pair| {
            pair[1]
                .placed_at
                .since(pair[0].ended_at.unwrap())
                .as_millis()
        })
        .collect();
    assert!(pauses[0] >= 5_000 && pauses[1] >= 10_000, "{pauses:?}");
}

#[test]
fn so_many_processes_succeed_and_so_many_run_at_once() {
    let mut sim = Sim::new(3);
    sim.deploy(ServiceConfig {
        completions: Some(5),
        parallelism: Some(2),
        ..job("j")
    });
    let number = request(&mut sim, "j", None);
    let most = |sim: &Sim| run(sim, "j", number).active().count();
    sim.until("two run at once", |sim| most(sim) == 2);
    let run = until_ended(&mut sim, "j", number);
    assert_eq!(run.done, (1..=5).collect());
    assert_eq!(starts(&sim), 5);
}

#[test]
fn a_run_that_takes_too_long_is_stopped() {
    let mut sim = Sim::new(1);
    sim.workloads.run_time = Span::secs(60);
    sim.deploy(ServiceConfig {
        deadline: Some(Span::secs(10)),
        ..job("j")
    });
    let number = request(&mut sim, "j", None);
    let began_at = run(&sim, "j", number).began_at.unwrap();
    let run = until_ended(&mut sim, "j", number);
    assert_eq!(run.outcome, Some(Outcome::Deadline));
    assert_eq!(run.attempts[0].end, Some(AttemptEnd::Stopped));
    assert!(run.ended_at.unwrap() >= began_at.after(Span::secs(10)));
    assert_eq!(run.describe(), "stopped: it took longer than 10s");
}

#[test]
fn a_run_is_stopped_on_request_and_the_next_one_waits_until_it_is_gone() {
    let mut sim = Sim::new(2);
    sim.workloads.run_time = Span::secs(60);
    sim.deploy(job("j"));
    let (first, second) = (request(&mut sim, "j", None), request(&mut sim, "j", None));
    until_started(&mut sim, "j", first);
    assert_eq!(run(&sim, "j", second).state(), "waiting");
    sim.event(Event::RunStopped {
        service: name("j"),
        number: first,
    });
    assert_eq!(run(&sim, "j", first).state(), "stopping");
    let ended = until_ended(&mut sim, "j", first);
    assert_eq!(ended.outcome, Some(Outcome::Stopped));
    let began_at = run(&sim, "j", second).began_at.unwrap();
    assert!(began_at >= ended.ended_at.unwrap());
}

#[test]
fn a_missing_worker_is_taken_to_run_on_and_its_run_is_not_doubled() {
    let mut sim = Sim::new(2);
    sim.workloads.run_time = Span::secs(30);
    sim.deploy(ServiceConfig {
        retries: Some(3),
        ..job("j")
    });
    let number = request(&mut sim, "j", None);
    let on = until_started(&mut sim, "j", number).attempts[0]
        .node
        .clone();
    sim.workers.iter_mut().for_each(|it| it.can_restart = true);
    let workers = sim.workers.clone();
    sim.reconfigure(workers);
    sim.unrestartable.insert(on.clone());
    sim.network.cut_off.insert(on.clone());
    sim.until("it is missing", |sim| {
        sim.cluster().node(&on).unwrap().condition == NodeCondition::Missing
    });
    assert_eq!(run(&sim, "j", number).attempts.len(), 1);
    // Also by a controller that has just started.
    sim.restart_controller();
    sim.network.cut_off.clear();
    let ended = until_ended(&mut sim, "j", number);
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
    assert_eq!((ended.failures, starts(&sim)), (0, 1));
}

#[test]
fn nobody_knows_how_a_process_on_a_dead_worker_ended() {
    let mut sim = Sim::new(2);
    sim.workloads.run_time = Span::secs(30);
    sim.deploy(job("j"));
    let number = request(&mut sim, "j", None);
    let on = until_started(&mut sim, "j", number).attempts[0]
        .node
        .clone();
    sim.agents.get_mut(&on).unwrap().cut_power();
    let ended = until_ended(&mut sim, "j", number);
    let why = format!("its worker {on} is dead");
    assert_eq!(ended.outcome, Some(Outcome::Unknown { why }));
    assert_eq!(ended.code(), 125);
    // It is not begun again when the worker comes back.
    sim.agents.get_mut(&on).unwrap().power_on();
    sim.run(Span::secs(20));
    assert_eq!(starts(&sim), 1);
}

#[test]
fn a_process_whose_worker_lost_power_is_not_started_again() {
    let mut sim = Sim::new(2);
    sim.workloads.run_time = Span::secs(30);
    sim.deploy(ServiceConfig {
        retries: Some(1),
        ..job("j")
    });
    let number = request(&mut sim, "j", None);
    let first = until_started(&mut sim, "j", number).attempts[0].clone();
    let agent = sim.agents.get_mut(&first.node).unwrap();
    agent.cut_power();
    agent.power_on();
    let ended = until_ended(&mut sim, "j", number);
    assert!(matches!(
        ended.attempts[0].end,
        Some(AttemptEnd::Unknown { .. })
    ));
    assert_eq!(
        (ended.outcome, ended.failures),
        (Some(Outcome::Succeeded), 1)
    );
    assert_eq!(starts(&sim), 2, "another one, since it may be retried");
}

#[test]
fn agents_that_lose_their_disk_do_not_begin_it_again() {
    let mut sim = Sim::new(1);
    sim.workloads.run_time = Span::secs(30);
    sim.deploy(job("j"));
    let number = request(&mut sim, "j", None);
    until_started(&mut sim, "j", number);
    sim.run(Span::secs(2));
    let agent = sim.agent(1);
    agent.cut_power();
    agent.lose_disk();
    agent.power_on();
    let ended = until_ended(&mut sim, "j", number);
    assert!(
        matches!(ended.outcome, Some(Outcome::Unknown { .. })),
        "{ended:?}"
    );
    assert_eq!(starts(&sim), 0);
}

#[test]
fn a_controller_that_dies_between_end_and_record_still_learns_it() {
    for done in 0..3 {
        let mut sim = Sim::new(1);
        sim.deploy(job("j"));
        let number = request(&mut sim, "j", None);
        until_started(&mut sim, "j", number);
        sim.until("it has ended on its worker", |sim| {
            let mut containers = sim.agents.values().flat_map(|it| it.containers.values());
            containers.any(|it| it.state == ProcessState::Ended)
        });
        sim.crash_after = Some(done);
        sim.run(Span::secs(5));
        sim.restart_controller();
        let ended = until_ended(&mut sim, "j", number);
        assert_eq!(ended.outcome, Some(Outcome::Succeeded), "{done}");
        assert_eq!(starts(&sim), 1);
    }
}

#[test]
fn a_deploy_neither_kills_nor_doubles_a_run() {
    let mut sim = Sim::new(2);
    sim.workloads.run_time = Span::secs(20);
    sim.deploy(job("j"));
    let number = request(&mut sim, "j", None);
    until_started(&mut sim, "j", number);
    for digit in 2..12 {
        sim.deploy_image(job("j"), digit);
    }
    let ended = until_ended(&mut sim, "j", number);
    assert_eq!(
        (ended.revision, ended.outcome),
        (Revision(1), Some(Outcome::Succeeded))
    );
    assert_eq!(starts(&sim), 1);
    let next = request(&mut sim, "j", None);
    assert_eq!(run(&sim, "j", next).revision, Revision(11));
}

#[test]
fn agents_that_do_not_know_jobs_get_none() {
    let mut sim = Sim::new(2);
    sim.agent(1).unknown_keys = vec!["kind"];
    sim.run(Span::secs(2));
    sim.deploy(job("j"));
    for _ in 0..3 {
        let number = request(&mut sim, "j", None);
        assert_eq!(until_ended(&mut sim, "j", number).attempts[0].node, node(2));
    }
    sim.agent(2).unknown_keys = vec!["kind"];
    sim.run(Span::secs(2));
    request(&mut sim, "j", None);
    let pending = sim.cluster().job(&name("j")).unwrap().pending;
    assert!(pending.unwrap().to_string().contains("kind"));
}

#[test]
fn runs_wait_for_memory() {
    let mut sim = Sim::new(1);
    sim.serve(ServiceConfig {
        memory: tucano_api::units::Bytes(8 << 30),
        ..config("a", 1)
    });
    sim.deploy(job("j"));
    let number = request(&mut sim, "j", None);
    sim.run(Span::secs(3));
    assert!(sim.cluster().job(&name("j")).unwrap().pending.is_some());
    sim.remove("a");
    assert_eq!(
        until_ended(&mut sim, "j", number).outcome,
        Some(Outcome::Succeeded)
    );
}

#[test]
fn a_command_runs_beside_a_service() {
    let mut sim = Sim::new(2);
    sim.serve(config("a", 2));
    let number = request(&mut sim, "a", Some(&["./task"]));
    let ended = until_ended(&mut sim, "a", number);
    assert_eq!(ended.trigger, Trigger::Request);
    assert_eq!(ended.command.as_deref(), Some(&["./task".to_owned()][..]));
    assert_eq!(sim.routed("a").len(), 2);
    let refused = sim.cluster().run_obstacle(&name("a"), None).unwrap();
    assert!(refused.contains("tucano run a --"), "{refused}");
    sim.remove("a");
    assert!(sim.cluster().runs(&name("a")).is_empty());
}

#[test]
fn so_many_results_are_kept() {
    let mut sim = Sim::with(Options {
        settings: tucano_planner::Settings {
            runs_kept: 3,
            ..settings()
        },
        ..Options::default()
    });
    sim.workloads.run_time = Span::millis(100);
    sim.deploy(job("j"));
    for _ in 0..6 {
        let number = request(&mut sim, "j", None);
        until_ended(&mut sim, "j", number);
    }
    let kept: Vec<u64> = sim
        .cluster()
        .runs(&name("j"))
        .iter()
        .map(|it| it.number)
        .collect();
    assert_eq!(kept, [6, 5, 4]);
}

#[test]
fn a_schedule_runs_once_a_tick_and_skips_what_overlaps() {
    let mut sim = Sim::new(1);
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(185));
    let runs = sim.cluster().runs(&name("j"));
    assert_eq!(runs.len(), 3);
    sim.workloads.run_time = Span::secs(100);
    sim.run(Span::secs(240));
    let view = sim.cluster().job(&name("j")).unwrap();
    assert_eq!(view.left_out, 2);
    assert!(view.next.unwrap() > sim.now);
}

#[test]
fn at_most_one_run_waits_where_they_queue() {
    let mut sim = Sim::new(1);
    sim.workloads.run_time = Span::secs(150);
    sim.deploy(scheduled("* * * * *", Overlap::Queue));
    sim.run(Span::secs(240));
    let view = sim.cluster().job(&name("j")).unwrap();
    let states: Vec<_> = view.active.iter().map(Run::state).collect();
    assert_eq!(states, ["running", "waiting"]);
    assert!(view.left_out >= 1);
}

#[test]
fn a_later_run_takes_the_place_of_an_earlier_one() {
    let mut sim = Sim::new(1);
    sim.workloads.run_time = Span::secs(600);
    sim.deploy(scheduled("* * * * *", Overlap::Replace));
    sim.run(Span::secs(190));
    let runs = sim.cluster().runs(&name("j"));
    let ended = runs.iter().filter(|run| !run.is_active());
    assert!(ended.clone().count() >= 2);
    assert!(
        ended
            .into_iter()
            .all(|run| run.outcome == Some(Outcome::Replaced))
    );
    assert_eq!(runs[0].state(), "running");
}

#[test]
fn hundreds_of_missed_ticks_are_one_late_run_and_no_end_of_the_schedule() {
    let mut sim = Sim::new(1);
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(70));
    let before = sim.cluster().runs(&name("j")).len();
    sim.cluster = None;
    sim.now = sim.now.after(Span::secs(600 * 60));
    sim.restart_controller();
    sim.run(Span::secs(5));
    assert_eq!(sim.cluster().runs(&name("j")).len(), before + 1);
    sim.run(Span::secs(120));
    assert!(sim.cluster().runs(&name("j")).len() >= before + 2);
}

#[test]
fn a_tick_that_is_too_late_is_left_out() {
    for (late, expected) in [(30 * 60, 1), (3 * 3600, 0)] {
        let mut sim = Sim::new(1);
        sim.deploy(scheduled("0 3 * * *", Overlap::Skip));
        sim.run(Span::secs(1));
        let tick = sim.cluster().job(&name("j")).unwrap().next.unwrap();
        sim.cluster = None;
        sim.now = tick.after(Span::secs(late));
        sim.restart_controller();
        sim.run(Span::secs(10));
        let view = sim.cluster().job(&name("j")).unwrap();
        let runs = sim.cluster().runs(&name("j"));
        assert_eq!((runs.len(), view.left_out), (expected, 1 - expected as u64));
    }
}

#[test]
fn a_restored_database_runs_no_tick_and_no_run_again() {
    let mut sim = Sim::new(1);
    sim.workloads.run_time = Span::secs(300);
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(1));
    let early = sim.disk.clone();
    sim.until("a run has begun", |sim| starts(sim) == 1);
    let copy = sim.disk.clone();
    for (mut disk, active) in [(copy, true), (early, false)] {
        let begins = Epoch(sim.now.0 / 1000 + 1);
        disk.identity.epoch = begins;
        sim.replace_disk(disk);
        sim.now = sim.now.after(Span::secs(1));
        sim.run(Span::secs(20));
        sim.event(Event::Adopt);
        sim.run(Span::secs(5));
        let ticks = sim
            .cluster()
            .runs(&name("j"))
            .into_iter()
            .filter_map(|run| match run.trigger {
                Trigger::Schedule { tick, .. } if run.epoch == begins => Some(tick),
                _ => None,
            });
        assert!(
            ticks
                .into_iter()
                .all(|tick| tick >= Timestamp(begins.0 * 1000)),
            "{active}"
        );
    }
    assert_eq!(starts(&sim), 1);
}

#[test]
fn a_schedule_that_fails_is_alerted_once_and_so_is_its_recovery() {
    let mut sim = Sim::new(1);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(200));
    assert_eq!(of_kind(&sim.alerts, AlertKind::JobFailed), 1);
    sim.workloads.crashing.clear();
    sim.run(Span::secs(130));
    assert_eq!(of_kind(&sim.alerts, AlertKind::JobRecovered), 1);
}

#[test]
fn a_clock_that_was_wrong_for_years_does_not_stop_a_schedule() {
    let mut sim = Sim::new(1);
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(70));
    sim.cluster = None;
    sim.now = sim.now.after(Span::secs(400 * 86_400));
    sim.restart_controller();
    sim.run(Span::secs(90));
    sim.cluster = None;
    sim.now = START.after(Span::secs(3600));
    let before = sim.disk.jobs[0].last_run;
    sim.agents.values_mut().for_each(|agent| agent.restart());
    sim.restart_controller();
    sim.run(Span::secs(200));
    let view = sim.cluster().job(&name("j")).unwrap();
    assert!(
        sim.disk.jobs[0].last_run >= before + 2,
        "{view:#?} {:#?}",
        sim.disk.jobs
    );
}

#[test]
fn a_service_does_not_become_a_job() {
    let mut sim = Sim::new(1);
    sim.serve(config("a", 1));
    let refused = sim.cluster().conflict(&job("a")).unwrap();
    assert!(refused.starts_with("kind: "), "{refused}");
    sim.deploy(job("a"));
    assert_eq!(sim.service("a").configured.config, config("a", 1));
    let states: Vec<_> = sim
        .service("a")
        .active
        .processes
        .into_iter()
        .map(|it| it.report.state)
        .collect();
    assert_eq!(states, [ProcessState::Healthy]);
}

#[test]
fn another_schedule_begins_with_its_next_tick() {
    let mut sim = Sim::new(1);
    sim.deploy(scheduled("0 3 1 1 *", Overlap::Skip));
    sim.run(Span::secs(90));
    // Its last tick was less than an hour ago.
    sim.deploy(scheduled("* * * * *", Overlap::Skip));
    sim.run(Span::secs(5));
    let view = sim.cluster().job(&name("j")).unwrap();
    assert_eq!(
        (sim.cluster().runs(&name("j")).len(), view.left_out),
        (0, 0)
    );
    sim.run(Span::secs(60));
    assert_eq!(sim.cluster().runs(&name("j")).len(), 1);
}
