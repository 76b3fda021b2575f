use tucano_api::{state::AlertKind, units::Span};

use tucano_simulator::{Sim, alerts, config, image, of_kind};

/// Has the kernel kill the service's first process.
fn oom_kill(sim: &mut Sim) {
    let id = sim.ids("hello")[0].clone();
    let now = sim.now;
    for agent in sim.agents.values_mut() {
        agent.oom_kill(&id, now);
    }
}

#[test]
fn a_crash_loop_is_alerted_once() {
    let mut sim = Sim::new(1);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(60));
    assert_eq!(alerts(&sim), [(AlertKind::ProcessCrashing, "hello-1")]);
    let message = &sim.alerts[0].message;
    assert!(
        message.contains("ended 3 times in a row; it last ended with exit code 1"),
        "{message}"
    );
}

#[test]
fn two_crashes_send_no_alert() {
    let mut sim = Sim::new(1);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(2));
    sim.workloads.crashing.clear();
    sim.run(Span::secs(30));
    assert!(
        sim.agents
            .values()
            .all(|a| a.containers.values().all(|c| c.restarts > 0))
    );
    assert_eq!(alerts(&sim), []);
}

#[test]
fn crashes_far_apart_do_not_add_up() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    for _ in 0..5 {
        oom_kill(&mut sim);
        sim.run(Span::secs(10));
    }
    assert_eq!(of_kind(&sim.alerts, AlertKind::ProcessCrashing), 0);
    assert_eq!(of_kind(&sim.alerts, AlertKind::ProcessOomKilled), 5);
    assert_eq!(of_kind(&sim.alerts, AlertKind::ProcessRecovered), 5);
}

#[test]
fn a_process_that_crashed_and_is_healthy_for_a_while_has_recovered() {
    let mut sim = Sim::new(1);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(20));
    sim.workloads.crashing.clear();
    sim.run(Span::secs(3));
    assert_eq!(
        of_kind(&sim.alerts, AlertKind::ProcessRecovered),
        0,
        "not yet"
    );
    sim.run(Span::secs(30));
    assert_eq!(
        alerts(&sim),
        [
            (AlertKind::ProcessCrashing, "hello-1"),
            (AlertKind::ProcessRecovered, "hello-1")
        ]
    );
}

#[test]
fn an_oom_kill_is_alerted_once_until_the_process_has_recovered() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    for _ in 0..2 {
        oom_kill(&mut sim);
        sim.run(Span::secs(2));
    }
    assert_eq!(alerts(&sim), [(AlertKind::ProcessOomKilled, "hello-1")]);
    assert!(
        sim.alerts[0]
            .message
            .contains("its memory limit of 256 MiB")
    );
    sim.run(Span::secs(20));
    oom_kill(&mut sim);
    sim.run(Span::secs(1));
    let kinds: Vec<AlertKind> = alerts(&sim).into_iter().map(|(kind, _)| kind).collect();
    use AlertKind::{ProcessOomKilled, ProcessRecovered};
    assert_eq!(
        kinds,
        [ProcessOomKilled, ProcessRecovered, ProcessOomKilled]
    );
}

/// The service's first process reaches its limit of processes and threads, or is below it again.
fn fill_pids(sim: &mut Sim, is_reached: bool) {
    let id = sim.ids("hello")[0].clone();
    let now = sim.now;
    for agent in sim.agents.values_mut() {
        agent.fill_pids(&id, is_reached, now);
    }
}

#[test]
fn a_reached_pids_limit_is_alerted_once_until_the_process_has_been_below_it_for_a_while() {
    use AlertKind::{ProcessAtPidsLimit, ProcessRecovered};
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    sim.run(Span::secs(60));
    assert_eq!(alerts(&sim), []);
    for _ in 0..5 {
        fill_pids(&mut sim, true);
        sim.run(Span::secs(3));
        fill_pids(&mut sim, false);
        sim.run(Span::secs(1));
    }
    assert_eq!(alerts(&sim), [(ProcessAtPidsLimit, "hello-1")]);
    let message = &sim.alerts[0].message;
    assert!(
        message.contains("limit of 512 processes and threads"),
        "{message}"
    );
    assert!(message.contains("`init = true`"), "{message}");
    sim.run(Span::secs(30));
    fill_pids(&mut sim, true);
    sim.run(Span::secs(60));
    let kinds: Vec<AlertKind> = alerts(&sim).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [ProcessAtPidsLimit, ProcessRecovered, ProcessAtPidsLimit]
    );
    assert!(sim.alerts[1].message.contains("below its limit"));
}

#[test]
fn a_restart_of_the_controller_repeats_no_alert() {
    let mut sim = Sim::new(1);
    sim.workloads.crashing.insert(image(1));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(20));
    oom_kill(&mut sim);
    sim.run(Span::secs(1));
    let before = alerts(&sim).len();
    assert_eq!(before, 2);
    sim.restart_controller();
    sim.run(Span::secs(20));
    assert_eq!(alerts(&sim).len(), before);
    sim.workloads.crashing.clear();
    sim.run(Span::secs(20));
    assert_eq!(alerts(&sim).last().unwrap().0, AlertKind::ProcessRecovered);
    sim.restart_controller();
    sim.run(Span::secs(20));
    assert_eq!(alerts(&sim).len(), before + 1);
}

#[test]
fn a_lost_count_of_restarts_starts_again_from_zero() {
    let mut sim = Sim::new(1);
    sim.serve(config("hello", 1));
    let id = sim.ids("hello")[0].clone();
    sim.agent(1).containers.get_mut(&id).unwrap().restarts = 50;
    sim.run(Span::secs(30));
    sim.agent(1).containers.get_mut(&id).unwrap().restarts = 0;
    sim.run(Span::secs(2));
    let before = of_kind(&sim.alerts, AlertKind::ProcessCrashing);
    sim.agent(1).containers.get_mut(&id).unwrap().restarts = 3;
    sim.run(Span::secs(2));
    assert_eq!(of_kind(&sim.alerts, AlertKind::ProcessCrashing), before + 1);
}
