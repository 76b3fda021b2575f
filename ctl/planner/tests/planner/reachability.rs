use tucano_api::{state::AlertKind, units::Span};
use tucano_simulator::{Sim, alerts, config, node};

#[test]
fn a_worker_that_cannot_be_reached_gets_its_set_with_the_answer_to_its_report() {
    let mut sim = Sim::new(2);
    sim.network.unreachable.insert(node(1));
    sim.serve(config("hello", 4));
    assert_eq!(sim.spread("hello"), [2, 2]);
    let reason = sim.cluster().node(&node(1)).unwrap().reason.unwrap();
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[test]
fn an_unreachable_worker_is_alerted_once_after_a_while_and_again_when_it_is_reachable() {
    let mut sim = Sim::new(2);
    sim.network.unreachable.insert(node(1));
    sim.run(Span::secs(8));
    assert_eq!(alerts(&sim), []);
    sim.run(Span::secs(60));
    assert_eq!(alerts(&sim), [(AlertKind::NodeUnreachable, "w1")]);
    sim.network.unreachable.clear();
    sim.run(Span::secs(3));
    assert_eq!(
        alerts(&sim),
        [
            (AlertKind::NodeUnreachable, "w1"),
            (AlertKind::NodeReachable, "w1")
        ]
    );
    assert_eq!(sim.cluster().node(&node(1)).unwrap().reason, None);
}
