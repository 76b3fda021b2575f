//! What must not happen in any step, whatever happens to the cluster. The validator looks at each one.

use proptest::prelude::*;

use crate::kit::chaos::{chaos, fragile};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_is_ever_broken(seed: u64, events in prop::collection::vec(chaos(), 1..60)) {
        let mut sim = fragile(seed);
        for event in events {
            sim.suffer(event);
        }
    }
}
