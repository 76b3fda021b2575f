//! Hooks: each runs once per revision, before the first process or after the rollout.

use tucano_api::{
    ids::Revision,
    jobs::{Outcome, Run, Trigger},
    reasons::PendingReason,
    rollout::{Progress, progress},
    service::{Hook, ServiceConfig},
    state::AlertKind,
    units::Span,
};

use tucano_simulator::{Sim, config, image, name, of_kind};

fn hook(word: &str) -> Option<Hook> {
    Some(Hook {
        args: vec![word.to_owned()],
        timeout: Span::secs(60),
    })
}

fn before(concurrency: u32, value: &str) -> ServiceConfig {
    ServiceConfig {
        before: hook("migrate"),
        env: [("VALUE".to_owned(), value.to_owned())].into(),
        ..config("a", concurrency)
    }
}

fn runs(sim: &Sim) -> Vec<Run> {
    let mut runs = sim.cluster().runs(&name("a"));
    runs.reverse();
    runs
}

fn until_runs_ended(sim: &mut Sim, count: usize) {
    sim.until("so many runs have ended", |sim| {
        runs(sim).iter().filter(|run| !run.is_active()).count() == count
    });
}

fn revision(sim: &Sim) -> Revision {
    sim.service("a").configured.revision
}

#[test]
fn no_process_is_placed_before_it_has_succeeded() {
    let mut sim = Sim::new(2);
    sim.deploy(before(2, "1"));
    let view = sim.service("a");
    assert!(view.active.processes.is_empty());
    let pending = view.active.pending[0].cause.clone().unwrap();
    assert!(
        matches!(pending, PendingReason::Before { .. }),
        "{pending:?}"
    );
    let waits = progress(&name("a"), Some(&view), Revision(1));
    assert!(matches!(waits, Progress::Waiting(_)), "{waits:?}");
    sim.until_settled("a");
    let all = runs(&sim);
    assert_eq!(all.len(), 1);
    assert_eq!(
        (&all[0].trigger, all[0].revision),
        (&Trigger::Before, Revision(1))
    );
    assert_eq!(all[0].command.as_deref(), Some(&["migrate".to_owned()][..]));
    assert_eq!(
        progress(&name("a"), Some(&sim.service("a")), Revision(1)),
        Progress::Healthy
    );
}

#[test]
fn a_rollout_does_not_begin_where_it_fails_and_the_old_revision_serves_on() {
    let mut sim = Sim::new(3);
    sim.serve(before(2, "1"));
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(before(2, "2"), 2);
    until_runs_ended(&mut sim, 2);
    sim.run(Span::secs(5));
    assert_eq!((revision(&sim), sim.routed("a").len()), (Revision(1), 2));
    let Progress::Failed(why) = progress(&name("a"), Some(&sim.service("a")), Revision(2)) else {
        panic!("it has failed");
    };
    assert!(why[0].contains("ended with exit code 1"), "{why:?}");
    assert_eq!(of_kind(&sim.alerts, AlertKind::HookFailed), 1);
    // It is scaled and placed again as ever.
    sim.deploy_image(before(3, "2"), 2);
    sim.until("three are routed", |sim| sim.routed("a").len() == 3);
    sim.agent(1).cut_power();
    sim.until("it is complete without the worker", |sim| {
        sim.spread("a")[0] == 0 && sim.routed("a").len() == 3
    });
    assert_eq!(revision(&sim), Revision(1));
    sim.restart_controller();
    sim.run(Span::secs(5));
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(1), 2));
}

#[test]
fn the_same_deploy_runs_it_again_once_it_has_failed() {
    let mut sim = Sim::new(2);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(before(1, "1"));
    until_runs_ended(&mut sim, 1);
    sim.run(Span::secs(5));
    assert_eq!(runs(&sim).len(), 1, "not by itself");
    sim.workloads.crashing.clear();
    sim.serve(before(1, "1"));
    assert_eq!(runs(&sim).len(), 2);
    sim.deploy(before(1, "1"));
    sim.run(Span::secs(5));
    assert_eq!(runs(&sim).len(), 2, "once per revision");
}

#[test]
fn it_does_not_run_on_scale_restart_or_rollback() {
    let mut sim = Sim::new(3);
    sim.serve(before(1, "1"));
    sim.serve(before(1, "2"));
    assert_eq!(runs(&sim).len(), 2);
    sim.serve(before(3, "2"));
    sim.restart_controller();
    sim.agent(1).cut_power();
    sim.run(Span::secs(10));
    sim.agent(1).power_on();
    sim.serve(before(3, "1"));
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(3), 2));
    // Routes alone replace no process.
    sim.serve(ServiceConfig {
        hosts: vec!["a.example".into()],
        ..before(3, "1")
    });
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(4), 2));
}

#[test]
fn a_later_deploy_takes_the_place_of_one_that_waits() {
    let mut sim = Sim::new(2);
    sim.serve(before(1, "1"));
    sim.workloads.run_time = Span::secs(10);
    sim.deploy(before(1, "2"));
    sim.run(Span::secs(3));
    sim.deploy(before(1, "3"));
    sim.run(Span::secs(1));
    let all = runs(&sim);
    assert_eq!(all.len(), 2, "one at a time");
    sim.until_settled("a");
    sim.until("the last one is in force", |sim| {
        revision(sim) == Revision(3)
    });
    sim.until_settled("a");
    let revisions: Vec<_> = runs(&sim)
        .iter()
        .map(|run| (run.revision, run.outcome.clone()))
        .collect();
    let done = |number| (Revision(number), Some(Outcome::Succeeded));
    assert_eq!(revisions, [done(1), done(2), done(3)]);
}

#[test]
fn the_present_configuration_gives_up_what_waits() {
    let mut sim = Sim::new(2);
    sim.serve(before(1, "1"));
    sim.workloads.crashing.insert(image(2));
    sim.deploy_image(before(1, "2"), 2);
    until_runs_ended(&mut sim, 2);
    sim.deploy(before(1, "1"));
    sim.run(Span::secs(5));
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(1), 2));
    sim.workloads.crashing.clear();
    sim.deploy(before(1, "3"));
    until_runs_ended(&mut sim, 3);
    sim.until_settled("a");
    assert_eq!(revision(&sim), Revision(3), "no number is used twice");
}

#[test]
fn one_whose_end_nobody_knows_does_not_begin_the_rollout() {
    let mut sim = Sim::new(2);
    sim.serve(before(1, "1"));
    sim.workloads.run_time = Span::secs(30);
    sim.deploy(before(1, "2"));
    sim.until("it runs", |sim| {
        runs(sim)
            .last()
            .unwrap()
            .active()
            .any(|it| it.started_at.is_some())
    });
    let on = runs(&sim).last().unwrap().attempts[0].node.clone();
    let agent = sim.agents.get_mut(&on).unwrap();
    agent.cut_power();
    agent.power_on();
    until_runs_ended(&mut sim, 2);
    let last = runs(&sim).pop().unwrap();
    assert!(
        matches!(last.outcome, Some(Outcome::Unknown { .. })),
        "{last:?}"
    );
    sim.run(Span::secs(60));
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(1), 2));
}

#[test]
fn after_the_rollout_it_runs_once_and_its_failure_is_an_alert() {
    let with_after = |value: &str| ServiceConfig {
        before: None,
        after: hook("announce"),
        ..before(2, value)
    };
    let mut sim = Sim::new(2);
    sim.deploy(with_after("1"));
    assert!(runs(&sim).is_empty());
    sim.until_settled("a");
    until_runs_ended(&mut sim, 1);
    assert_eq!(runs(&sim)[0].trigger, Trigger::After);
    // Programs that fail to serve are those of the runs too: break them once the rollout is complete.
    sim.deploy_image(with_after("2"), 2);
    sim.until("it runs", |sim| runs(sim).len() == 2);
    sim.workloads.crashing.insert(image(2));
    until_runs_ended(&mut sim, 2);
    sim.workloads.crashing.clear();
    assert_eq!(of_kind(&sim.alerts, AlertKind::HookFailed), 1);
    sim.run(Span::secs(10));
    assert_eq!((revision(&sim), runs(&sim).len()), (Revision(2), 2));
}
