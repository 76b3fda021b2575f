use tucano_api::{agent::DesiredSet, ids::Generation};
use tucano_planner::Counters;

use super::*;

fn assign(node: &str, generation: u64) -> Action {
    Action::Assign(DesiredSet {
        generation: Generation(generation),
        ..DesiredSet::empty(node.parse().unwrap())
    })
}

#[test]
fn only_the_newest_level_is_kept() {
    let mut pending = PendingWrites::default();
    for n in 1..100 {
        let counters = Record::Counters(Counters {
            last_process: n,
            ..Counters::default()
        });
        pending.push(
            vec![counters],
            vec![assign("w1", n), Action::Publish(Vec::new())],
        );
    }
    pending.push(Vec::new(), vec![assign("w2", 1)]);
    assert_eq!(pending.records().len(), 1);
    let actions = pending.release();
    assert_eq!(
        actions,
        [
            assign("w1", 99),
            Action::Publish(Vec::new()),
            assign("w2", 1)
        ]
    );
    assert!(pending.is_empty());
}

#[test]
fn a_removal_takes_the_place_of_its_record() {
    let mut pending = PendingWrites::default();
    let gone = Record::ServiceGone("hello".parse().unwrap());
    pending.push(vec![gone.clone()], Vec::new());
    pending.push(vec![gone.clone()], Vec::new());
    assert_eq!(pending.records(), [gone]);
}
