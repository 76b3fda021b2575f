use tucano_api::{
    state::{AlertKind, NodeCondition},
    units::{Span, Timestamp},
};
use tucano_planner::Event;

use tucano_simulator::{Sim, alerts, config, node};

#[test]
fn a_lost_worker_is_unrouted_replaced_and_alerted_in_one_step() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    sim.network.cut_off.insert(node(2));
    sim.until_condition(2, NodeCondition::Dead);
    assert_eq!(sim.spread("hello"), [3, 0, 3]);
    assert_eq!(
        sim.routed("hello").len(),
        4,
        "not those that are not healthy yet"
    );
    assert_eq!(
        alerts(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
    sim.until_settled("hello");
}

#[test]
fn reports_renew_the_lease() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.run(Span::secs(60));
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_returning_worker_stops_processes_that_were_replaced() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 6));
    sim.network.cut_off.insert(node(2));
    sim.until_condition(2, NodeCondition::Dead);
    sim.until_settled("hello");
    assert_eq!(
        sim.agents[&node(2)].containers.len(),
        2,
        "it does not know yet"
    );
    sim.network.cut_off.clear();
    sim.until_condition(2, NodeCondition::Alive);
    assert_eq!(alerts(&sim).last(), Some(&(AlertKind::NodeBack, "w2")));
    sim.until("they are stopped", |sim| {
        sim.agents[&node(2)].containers.is_empty()
    });
    assert_eq!(sim.routed("hello").len(), 6);
}

#[test]
fn a_report_that_is_late_by_less_than_a_lease_is_tolerated() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.network.cut_off.insert(node(1));
    sim.run(Span::millis(800));
    sim.network.cut_off.clear();
    sim.run(Span::secs(5));
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_report_from_before_the_loss_does_not_make_a_worker_alive() {
    let mut sim = Sim::new(2);
    sim.run(Span::secs(2));
    let now = sim.now;
    let old = sim.agent(1).report(now);
    sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(old.clone()),
    });
    sim.agent(1).cut_power();
    sim.until_condition(1, NodeCondition::Dead);
    let actions = sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(old),
    });
    assert_eq!(actions, []);
    assert_eq!(sim.condition(1), NodeCondition::Dead);
}

#[test]
fn a_worker_that_never_reported_is_missing_after_a_lease() {
    let mut sim = Sim::unreported(Default::default());
    sim.agent(2).cut_power();
    sim.run(Span::secs(1));
    assert_eq!(sim.condition(2), NodeCondition::Unknown);
    assert_eq!(alerts(&sim), []);
    sim.run(Span::secs(2));
    assert_eq!(
        alerts(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
}

#[test]
fn leases_are_extended_after_a_pause_of_the_controller() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    sim.now = sim.now.after(Span::secs(60));
    assert_eq!(sim.event(Event::Tick), []);
    sim.run(Span::secs(10));
    assert_eq!(alerts(&sim), []);
    assert_eq!(sim.routed("hello").len(), 3);
}

#[test]
fn the_first_report_after_a_pause_does_not_expire_the_other_leases() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    sim.now = sim.now.after(Span::secs(60));
    let now = sim.now;
    let report = sim.agent(1).report(now);
    sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(report),
    });
    assert_eq!(alerts(&sim), []);
}

#[test]
fn leases_are_extended_only_once() {
    let mut sim = Sim::new(2);
    sim.now = sim.now.after(Span::secs(60));
    assert_eq!(sim.event(Event::Tick), []);
    sim.now = sim.now.after(Span::secs(60));
    sim.event(Event::Tick);
    assert_eq!(alerts(&sim), [(AlertKind::MassSilence, "cluster")]);
}

#[test]
fn leases_are_extended_again_after_a_report() {
    let mut sim = Sim::new(2);
    for _ in 0..3 {
        sim.now = sim.now.after(Span::secs(60));
        sim.event(Event::Tick);
        sim.run(Span::secs(3));
    }
    assert_eq!(alerts(&sim), []);
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let now = std::mem::replace(&mut sim.now, Timestamp(5));
    sim.event(Event::Tick);
    assert_eq!(sim.routed("hello").len(), 2);
    sim.now = now;
    sim.run(Span::secs(10));
    assert_eq!(alerts(&sim), []);
}
