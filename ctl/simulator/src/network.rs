//! A network that loses, duplicates, delays and so reorders messages, driven by a seed.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{DesiredSet, NodeReport},
    ids::NodeName,
    units::{Span, Timestamp},
};

/// A number generator (splitmix64): the same seed, the same numbers.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

/// What is sent between the controller and the agents.
#[derive(Debug, Clone)]
pub enum Message {
    /// A desired set for its node.
    Desired(DesiredSet),
    /// A report of this node.
    Report(NodeName, Box<NodeReport>),
}

impl Message {
    fn node(&self) -> &NodeName {
        match self {
            Self::Desired(set) => &set.node,
            Self::Report(node, _) => node,
        }
    }
}

/// The network between the controller and the agents.
#[derive(Debug, Clone)]
pub struct Network {
    /// Of 100 messages, how many are lost.
    pub lost: u64,
    /// Of 100 messages, how many arrive twice.
    pub doubled: u64,
    /// Longest delay in milliseconds; messages with a shorter one overtake others.
    pub delay_ms: u64,
    /// Workers whose agents cannot be reached, although their reports arrive.
    pub unreachable: BTreeSet<NodeName>,
    /// Workers without a connection to the controller.
    pub cut_off: BTreeSet<NodeName>,
    under_way: BTreeMap<(Timestamp, u64), Message>,
    sent: u64,
    rng: Rng,
}

impl Network {
    /// A network without faults.
    pub fn reliable(seed: u64) -> Self {
        Self {
            lost: 0,
            doubled: 0,
            delay_ms: 0,
            unreachable: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            rng: Rng(seed),
        }
    }

    /// Ends all faults.
    pub fn mend(&mut self) {
        (self.lost, self.doubled, self.delay_ms) = (0, 0, 0);
        self.cut_off.clear();
        self.unreachable.clear();
    }

    /// Sends a message, which may be lost, duplicated or delayed.
    pub fn send(&mut self, now: Timestamp, message: Message) {
        let copies = if self.rng.below(100) < self.doubled {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let refused =
                matches!(&message, Message::Desired(set) if self.unreachable.contains(&set.node));
            if refused || self.cut_off.contains(message.node()) || self.rng.below(100) < self.lost {
                continue;
            }
            let delay = Span::millis(self.rng.below(self.delay_ms + 1));
            self.sent += 1;
            self.under_way
                .insert((now.after(delay), self.sent), message.clone());
        }
    }

    /// The next message that has arrived by `now`.
    pub fn receive(&mut self, now: Timestamp) -> Option<Message> {
        loop {
            let first = self.under_way.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            let message = first.remove();
            if !self.cut_off.contains(message.node()) {
                return Some(message);
            }
        }
    }
}
