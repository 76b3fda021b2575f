use tucano_api::{
    state::{AlertKind, NodeCondition},
    units::{Span, Timestamp},
};
use tucano_planner::{Action, Event};

use crate::kit::{Sim, config, node, told};

#[test]
fn a_lost_worker_is_unrouted_replaced_and_reported_in_one_step() {
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
        told(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
    sim.until_settled("hello");
}

#[test]
fn a_worker_keeps_its_lease_for_as_long_as_it_reports() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.run(Span::secs(60));
    assert_eq!(told(&sim), []);
}

#[test]
fn a_worker_that_comes_back_stops_what_was_placed_elsewhere() {
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
    assert_eq!(told(&sim).last(), Some(&(AlertKind::NodeBack, "w2")));
    sim.until("they are stopped", |sim| {
        sim.agents[&node(2)].containers.is_empty()
    });
    assert_eq!(sim.routed("hello").len(), 6);
}

#[test]
fn a_worker_whose_report_was_merely_late_for_a_moment_is_not_lost() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    sim.network.cut_off.insert(node(1));
    sim.run(Span::millis(800));
    sim.network.cut_off.clear();
    sim.run(Span::secs(5));
    assert_eq!(told(&sim), []);
}

#[test]
fn a_late_report_from_before_the_loss_does_not_bring_a_worker_back() {
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
    let mut sim = Sim::silent(Default::default());
    sim.agent(2).cut_power();
    sim.run(Span::secs(1));
    assert_eq!(sim.condition(2), NodeCondition::Unknown);
    assert_eq!(told(&sim), []);
    sim.run(Span::secs(2));
    assert_eq!(
        told(&sim),
        [(AlertKind::NodeMissing, "w2"), (AlertKind::NodeDead, "w2")]
    );
}

#[test]
fn when_all_are_lost_all_are_pending_and_placed_again_when_they_return() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 4));
    sim.network.cut_off.extend([node(1), node(2)]);
    sim.run(Span::secs(5));
    assert_eq!(sim.routed("hello"), []);
    assert_eq!(sim.service("hello").active.pending[0].count, 4);
    sim.network.cut_off.clear();
    sim.until_settled("hello");
}

#[test]
fn a_controller_that_stood_still_itself_gives_everyone_one_more_lease() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    sim.now = sim.now.after(Span::secs(60));
    assert_eq!(sim.event(Event::Tick), []);
    sim.run(Span::secs(10));
    assert_eq!(told(&sim), []);
    assert_eq!(sim.routed("hello").len(), 3);
}

#[test]
fn the_first_report_after_such_a_pause_does_not_condemn_the_others() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 3));
    sim.now = sim.now.after(Span::secs(60));
    let now = sim.now;
    let report = sim.agent(1).report(now);
    sim.event(Event::NodeReported {
        node: node(1),
        report: Box::new(report),
    });
    assert_eq!(told(&sim), []);
}

#[test]
fn one_more_lease_is_given_only_once() {
    let mut sim = Sim::new(2);
    sim.now = sim.now.after(Span::secs(60));
    assert_eq!(sim.event(Event::Tick), []);
    sim.now = sim.now.after(Span::secs(60));
    let actions = sim.event(Event::Tick);
    let missing = actions
        .iter()
        .filter(|action| matches!(action, Action::Alert(_)))
        .count();
    assert_eq!(missing, 4, "both missing and dead");
}

#[test]
fn a_second_pause_after_a_report_is_forgiven_too() {
    let mut sim = Sim::new(2);
    for _ in 0..3 {
        sim.now = sim.now.after(Span::secs(60));
        sim.event(Event::Tick);
        sim.run(Span::secs(3));
    }
    assert_eq!(told(&sim), []);
}

#[test]
fn time_that_goes_back_counts_as_standing_still() {
    let mut sim = Sim::new(2);
    sim.serve(config("hello", 2));
    let now = std::mem::replace(&mut sim.now, Timestamp(5));
    sim.event(Event::Tick);
    assert_eq!(sim.routed("hello").len(), 2);
    sim.now = now;
    sim.run(Span::secs(10));
    assert_eq!(told(&sim), []);
}
