use proptest::prelude::*;

use super::*;

fn turns(rotation: &mut Rotation, weights: &[Option<u32>], count: usize) -> Vec<usize> {
    (0..count)
        .filter_map(|_| rotation.next(weights.iter().copied()))
        .collect()
}

#[test]
fn equal_weights_alternate_in_order() {
    let weights = [Some(1); 3];
    assert_eq!(
        turns(&mut Rotation::default(), &weights, 6),
        [0, 1, 2, 0, 1, 2]
    );
}

#[test]
fn heavier_endpoints_are_interleaved() {
    let weights = [Some(5), Some(1), Some(1)];
    let chosen = turns(&mut Rotation::default(), &weights, 7);
    assert_eq!(chosen, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn no_candidate_is_none() {
    assert_eq!(Rotation::default().next(std::iter::empty()), None);
    assert_eq!(Rotation::default().next([None, None].into_iter()), None);
}

#[test]
fn a_rotation_continues_from_carried_credits() {
    let mut first = Rotation::default();
    let weights = [Some(3), Some(2)];
    let whole = turns(&mut Rotation::default(), &weights, 10);
    let mut parts = turns(&mut first, &weights, 3);
    parts.extend(turns(
        &mut Rotation::with_credits(first.credits().to_vec()),
        &weights,
        7,
    ));
    assert_eq!(parts, whole);
}

fn weights() -> impl Strategy<Value = Vec<Option<u32>>> {
    prop::collection::vec(prop::option::weighted(0.8, 1_u32..=100), 1..12)
}

proptest! {
    #[test]
    fn every_round_gives_each_endpoint_its_weight(weights in weights(), rounds in 1_usize..3) {
        let total: u32 = weights.iter().flatten().sum();
        let chosen = turns(&mut Rotation::default(), &weights, total as usize * rounds);
        for (index, weight) in weights.iter().enumerate() {
            let count = chosen.iter().filter(|&&one| one == index).count();
            prop_assert_eq!(count, weight.unwrap_or(0) as usize * rounds);
        }
    }

    #[test]
    fn no_endpoint_is_ever_far_from_its_share(weights in weights()) {
        let total: u32 = weights.iter().flatten().sum();
        let chosen = turns(&mut Rotation::default(), &weights, total as usize);
        let mut counts = vec![0_i64; weights.len()];
        for (turn, &index) in chosen.iter().enumerate() {
            counts[index] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let due = i64::from(weight.unwrap_or(0)) * (turn as i64 + 1);
                let ahead = count * i64::from(total) - due;
                let bound = i64::from(total) * weights.len() as i64;
                prop_assert!(ahead.abs() < bound);
            }
        }
    }
}
