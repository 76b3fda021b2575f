//! What must not happen in any step, whatever happens to the cluster. The validator looks at each one.

use proptest::prelude::*;

use tucano_simulator::fault::{fault, unstable_cluster};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_under_any_faults(seed: u64, events in prop::collection::vec(fault(), 1..60)) {
        let mut sim = unstable_cluster(seed);
        for event in events {
            sim.inject(event);
        }
    }
}
