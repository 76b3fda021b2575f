use tucano_api::ids::{Digest, Epoch};

use super::*;

fn set(cluster: &str, epoch: u64, generation: u64, digit: &str) -> DesiredSet {
    DesiredSet {
        generation: Generation(generation),
        identity: SetIdentity {
            cluster: cluster.parse().ok(),
            epoch: Epoch(epoch),
            digest: Digest::sha256(&digit.repeat(64)).ok(),
        },
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

fn code(held: &DesiredSet, given: &DesiredSet) -> &'static str {
    match HeldVersion::of(held).accepts(given) {
        Ok(()) => "accepted",
        Err(refused) => refused.code(),
    }
}

const OWN: &str = "aaaaaaaa";

#[test]
fn a_newer_set_of_the_own_cluster_is_accepted() {
    let held = set(OWN, 5, 7, "1");
    assert_eq!(code(&held, &set(OWN, 5, 8, "2")), "accepted");
    assert_eq!(
        code(&held, &set(OWN, 5, 7, "1")),
        "accepted",
        "the same again"
    );
    assert_eq!(
        code(&held, &set(OWN, 6, 1, "2")),
        "accepted",
        "a newer epoch"
    );
}

#[test]
fn a_set_of_another_cluster_is_refused_unless_that_adopts_this_one() {
    let held = set(OWN, 5, 7, "1");
    let mut other = set("bbbbbbbb", 6, 8, "2");
    assert_eq!(code(&held, &other), "other_cluster");
    other.adopts = OWN.parse().ok();
    assert_eq!(code(&held, &other), "accepted");
    other.adopts = "cccccccc".parse().ok();
    assert_eq!(code(&held, &other), "other_cluster");
}

#[test]
fn a_controller_that_knows_less_is_refused() {
    let held = set(OWN, 5, 7, "1");
    assert_eq!(code(&held, &set(OWN, 5, 6, "2")), "stale_generation");
    assert_eq!(code(&held, &set(OWN, 4, 90, "2")), "stale_generation");
    assert_eq!(code(&held, &set(OWN, 5, 7, "2")), "conflicting_set");
}

#[test]
fn an_absurd_step_is_refused_and_a_saturated_generation_heals_with_the_next_epoch() {
    let held = set(OWN, 5, 7, "1");
    assert_eq!(
        code(&held, &set(OWN, 5, u64::MAX, "2")),
        "absurd_generation"
    );
    assert_eq!(
        code(&held, &set(OWN, u64::MAX, 8, "2")),
        "absurd_generation"
    );
    assert_eq!(
        code(&set("", 0, 0, "1"), &set("", 0, u64::MAX, "2")),
        "absurd_generation"
    );
    let saturated = set(OWN, 5, u64::MAX, "1");
    assert_eq!(code(&saturated, &set(OWN, 6, 8, "2")), "accepted");
}

#[test]
fn sets_without_identity_are_compared_by_generation() {
    let legacy = |generation| DesiredSet {
        identity: SetIdentity::default(),
        ..set("", 0, generation, "1")
    };
    assert_eq!(code(&set(OWN, 5, 7, "1"), &legacy(8)), "accepted");
    assert_eq!(code(&set(OWN, 5, 7, "1"), &legacy(6)), "stale_generation");
    assert_eq!(code(&legacy(7), &set(OWN, 5, 1, "1")), "accepted");
}
