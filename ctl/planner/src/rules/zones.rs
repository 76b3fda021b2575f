use tucano_api::ids::LabelName;

use crate::state::State;

/// The values of the label that a service is spread over. Without one, all nodes are in one zone.
#[derive(Debug, Clone)]
pub(crate) struct Zones {
    /// The zone of each node, by index.
    of: Option<Vec<usize>>,
    number: usize,
}

impl Zones {
    pub(super) fn new(state: &State, label: Option<&LabelName>) -> Self {
        let Some(label) = label else {
            return Self::single();
        };
        // All workers without the label are in a zone of their own.
        let values = state.nodes.iter().map(|node| node.worker.labels.get(label));
        let values: Vec<_> = values.collect();
        let mut distinct = values.clone();
        distinct.sort();
        distinct.dedup();
        let of = values.iter().map(|value| distinct.binary_search(value));
        Self {
            of: Some(of.map(Result::unwrap_or_default).collect()),
            number: distinct.len(),
        }
    }

    /// All nodes in one.
    pub(crate) fn single() -> Self {
        Self {
            of: None,
            number: 1,
        }
    }

    /// How many there are.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The zone of a node.
    pub(crate) fn of(&self, node: usize) -> usize {
        self.of.as_ref().map_or(0, |zones| zones[node])
    }

    /// The sum of the counts of each zone's nodes.
    pub(crate) fn sums(&self, counts: &[u32]) -> Vec<u32> {
        let mut sums = vec![0_u32; self.number];
        if self.of.is_some() {
            for (node, count) in counts.iter().enumerate() {
                let sum = &mut sums[self.of(node)];
                *sum = sum.saturating_add(*count);
            }
        }
        sums
    }
}
