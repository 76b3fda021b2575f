//! Which nodes are silent, by the pings that they answer. Pure.
//!
//! A silent node gets no new connections from this one while another node has the service. It is not taken for dead: where its
//! processes run next is the controller's decision, after its lease.
//!
//! Pings are counted, not seconds: a machine that was paused has sent none meanwhile, and suspects nobody when it goes on. A
//! node that has never answered is not suspected, since its network may drop pings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Unanswered pings in a row that make a node silent, on a path that loses none.
pub(super) const PINGS: u32 = 4;

/// As many at most, whatever the path loses.
const MAX_PINGS: u32 = 48;

/// Answers in a row after which a silent node is used again.
const ANSWERS: u32 = 3;

/// How improbable it must be that a path loses all of the pings in a row by chance.
const CHANCE: f64 = 1e-6;

/// Share of one ping in the averages.
const SHARE: f64 = 1.0 / 32.0;

/// The nodes that are watched.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    nodes: BTreeMap<Ipv4Addr, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Number of the last ping.
    sent: u32,
    /// Number of the last ping that was answered.
    answered: Option<u32>,
    /// Average share of pings without an answer, outages apart.
    loss: f64,
    /// Average number of further pings before an answer.
    lag: f64,
    is_silent: bool,
    /// Answers in a row since it became silent.
    answers: u32,
}

impl Suspicion {
    /// Watches these nodes and no others.
    pub(super) fn watch(&mut self, nodes: &BTreeSet<Ipv4Addr>) {
        self.nodes.retain(|ip, _| nodes.contains(ip));
        for ip in nodes {
            self.nodes.entry(*ip).or_default();
        }
    }

    /// The watched nodes, each with the number of its next ping.
    pub(super) fn next(&self) -> Vec<(Ipv4Addr, u32)> {
        let nodes = self.nodes.iter();
        nodes.map(|(ip, node)| (*ip, node.sent + 1)).collect()
    }

    /// This ping has left.
    pub(super) fn sent(&mut self, ip: Ipv4Addr, number: u32) {
        if let Some(node) = self.nodes.get_mut(&ip) {
            node.sent = node.sent.max(number);
        }
    }

    /// This ping was answered. A number that was not sent is none.
    pub(super) fn answered(&mut self, ip: Ipv4Addr, number: u32) {
        let node = self.nodes.get_mut(&ip);
        if let Some(node) = node.filter(|node| number <= node.sent) {
            node.answer(number);
        }
    }

    /// The silent nodes. To be called when the last ping has had its time for an answer.
    pub(super) fn silent(&mut self) -> BTreeSet<Ipv4Addr> {
        self.nodes.values_mut().for_each(Node::judge);
        let silent = self.nodes.iter().filter(|(_, node)| node.is_silent);
        silent.map(|(ip, _)| *ip).collect()
    }
}

impl Node {
    fn answer(&mut self, number: u32) {
        let before = self.answered.unwrap_or(number.saturating_sub(1));
        if number <= before {
            return;
        }
        let lost = number - before - 1;
        // A longer silence is an outage, and says nothing about how much the path loses.
        if lost < self.limit() {
            (0..lost).for_each(|_| self.loss += (1.0 - self.loss) * SHARE);
            self.lag += (f64::from(self.sent - number) - self.lag) * SHARE;
        }
        self.loss -= self.loss * SHARE;
        self.answered = Some(number);
        self.answers += 1;
    }

    fn judge(&mut self) {
        let Some(answered) = self.answered else {
            return;
        };
        let is_silent = match self.is_silent {
            true => self.answers < ANSWERS,
            false => self.sent - answered >= self.limit(),
        };
        if is_silent && !self.is_silent {
            self.answers = 0;
        }
        self.is_silent = is_silent;
    }

    /// Unanswered pings in a row that make it silent.
    fn limit(&self) -> u32 {
        let by_loss = match self.loss {
            loss if loss > 0.0 => (CHANCE.ln() / loss.min(0.99).ln()).ceil() as u32,
            _ => PINGS,
        };
        by_loss
            .saturating_add(self.lag.ceil() as u32)
            .clamp(PINGS, MAX_PINGS)
    }
}

#[cfg(test)]
mod tests;
