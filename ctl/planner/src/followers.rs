//! The balancers that follow the routes, and which draining processes all of them have confirmed to be drained.
//!
//! A process is drained when every known balancer has a table in force in which it gets no new requests, and has no
//! request in flight to it. Where that is not certain, nothing is drained and the drain time decides:
//!
//! - no balancer is known, or one has been silent for less than [`KNOWN_FOR`]: it may be cut off and still serve;
//! - a balancer of an earlier version follows, which does not confirm;
//! - the controller has started less than [`SETTLING`] ago: a balancer of its predecessor may not have returned yet.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{BalancerId, ProcessId},
    routes::ServiceRoute,
    units::{Span, Timestamp},
};

/// How long a silent balancer counts as one that may still serve.
pub const KNOWN_FOR: Span = Span::secs(60);
/// How long after the controller's start balancers are expected to return.
pub const SETTLING: Span = Span::secs(5);
/// Most balancers that are told apart. Further ones count as ones that do not confirm.
pub const MAX_FOLLOWERS: usize = 256;

/// The balancers that follow the routes.
#[derive(Debug, Clone)]
pub struct Followers {
    settled_at: Timestamp,
    known: BTreeMap<BalancerId, Follower>,
    /// The processes that drain, each with the number of the first table in which it does.
    draining: BTreeMap<ProcessId, u64>,
    /// When one that does not confirm last asked for the routes.
    silent_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Follower {
    seen_at: Timestamp,
    /// Number of the table that it last reported to be in force; 0 if that is none of this controller's.
    table: u64,
    /// The processes that it has confirmed for that table.
    drained: BTreeSet<ProcessId>,
}

impl Followers {
    /// Those of a controller that starts now: none.
    pub fn new(now: Timestamp) -> Self {
        Self {
            settled_at: now.after(SETTLING),
            known: BTreeMap::new(),
            draining: BTreeMap::new(),
            silent_at: None,
        }
    }

    /// A table is published. Its number is higher than those before, and above 0.
    pub fn published(&mut self, number: u64, routes: &[ServiceRoute]) {
        let endpoints = routes.iter().flat_map(|route| &route.endpoints);
        let draining = endpoints.filter(|endpoint| endpoint.draining);
        let before = std::mem::take(&mut self.draining);
        let since = |process: &ProcessId| before.get(process).copied().unwrap_or(number);
        self.draining = draining
            .map(|endpoint| (endpoint.process.clone(), since(&endpoint.process)))
            .collect();
    }

    /// A balancer asks for the routes, or waits for them; `None` if it does not say which one, as those of earlier
    /// versions.
    pub fn asked(&mut self, now: Timestamp, balancer: Option<&BalancerId>) {
        match balancer.and_then(|id| self.follower(now, id)) {
            Some(follower) => follower.seen_at = follower.seen_at.max(now),
            None => self.silent_at = self.silent_at.max(Some(now)),
        }
    }

    /// A balancer has the table of this number in force, and no request in flight to `drained`, which drain in it.
    pub fn confirmed(
        &mut self,
        now: Timestamp,
        balancer: &BalancerId,
        table: u64,
        drained: BTreeSet<ProcessId>,
    ) {
        self.asked(now, Some(balancer));
        if let Some(follower) = self.known.get_mut(balancer) {
            (follower.table, follower.drained) = (table, drained);
        }
    }

    /// A balancer has exited, with all its connections.
    pub fn left(&mut self, balancer: &BalancerId) {
        self.known.remove(balancer);
    }

    /// Whether any balancer follows: also one that waits for its first table, or does not say which it is.
    pub fn is_any_known(&self, now: Timestamp) -> bool {
        let mut seen = self.known.values().map(|it| it.seen_at);
        seen.any(|at| is_recent(now, at)) || self.silent_at.is_some_and(|at| is_recent(now, at))
    }

    /// Whether this balancer is known.
    pub fn contains(&self, now: Timestamp, balancer: &BalancerId) -> bool {
        let follower = self.known.get(balancer);
        follower.is_some_and(|follower| is_recent(now, follower.seen_at))
    }

    /// The draining processes that every balancer has confirmed.
    pub fn drained(&mut self, now: Timestamp) -> Vec<ProcessId> {
        self.forget(now);
        let silent = self.silent_at.is_some_and(|at| is_recent(now, at));
        if silent || now < self.settled_at || self.known.is_empty() {
            return Vec::new();
        }
        let all_confirm = |(process, since): &(&ProcessId, &u64)| {
            let mut followers = self.known.values();
            followers.all(|it| it.table >= **since && it.drained.contains(*process))
        };
        let drained = self.draining.iter().filter(all_confirm);
        drained.map(|(process, _)| process.clone()).collect()
    }

    fn follower(&mut self, now: Timestamp, id: &BalancerId) -> Option<&mut Follower> {
        if !self.known.contains_key(id) {
            self.forget(now);
            if self.known.len() >= MAX_FOLLOWERS {
                return None;
            }
        }
        let new = || Follower {
            seen_at: now,
            table: 0,
            drained: BTreeSet::new(),
        };
        Some(self.known.entry(id.clone()).or_insert_with(new))
    }

    fn forget(&mut self, now: Timestamp) {
        self.known
            .retain(|_, follower| is_recent(now, follower.seen_at));
    }
}

fn is_recent(now: Timestamp, seen_at: Timestamp) -> bool {
    now < seen_at.after(KNOWN_FOR)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use tucano_api::routes::Endpoint;

    use super::*;

    const SETTLED: Timestamp = Timestamp(10_000);

    fn id(text: &str) -> BalancerId {
        text.parse().unwrap()
    }

    /// Those whose first table, number 1, has three draining processes.
    fn followers() -> Followers {
        let mut followers = Followers::new(Timestamp(0));
        followers.published(1, &routes(&["x-1", "x-2", "x-3"]));
        followers
    }

    fn routes(draining: &[&str]) -> Vec<ServiceRoute> {
        let endpoint = |process: &&str| Endpoint {
            process: process.parse().unwrap(),
            node: "w1".parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1,
            draining: true,
        };
        vec![ServiceRoute {
            service: "x".parse().unwrap(),
            hosts: Vec::new(),
            path_prefix: None,
            endpoints: draining.iter().map(endpoint).collect(),
        }]
    }

    fn confirm(followers: &mut Followers, at: Timestamp, balancer: &str, processes: &[&str]) {
        let processes = processes.iter().map(|id| id.parse().unwrap()).collect();
        followers.confirmed(at, &id(balancer), 1, processes);
    }

    fn drained(followers: &Followers, at: Timestamp) -> Vec<String> {
        let drained = followers.clone().drained(at);
        drained.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_balancer_has_to_confirm() {
        let mut followers = followers();
        assert_eq!(drained(&followers, SETTLED), [""; 0], "no balancer");
        confirm(&mut followers, SETTLED, "a", &["x-1", "x-2"]);
        assert_eq!(drained(&followers, SETTLED), ["x-1", "x-2"]);
        followers.asked(SETTLED, Some(&id("b")));
        assert_eq!(drained(&followers, SETTLED), [""; 0], "b has not confirmed");
        confirm(&mut followers, SETTLED, "b", &["x-2", "x-3"]);
        assert_eq!(drained(&followers, SETTLED), ["x-2"]);
        confirm(&mut followers, SETTLED, "b", &[]);
        assert_eq!(drained(&followers, SETTLED), [""; 0], "the newest counts");
        followers.left(&id("b"));
        assert_eq!(drained(&followers, SETTLED), ["x-1", "x-2"]);
    }

    #[test]
    fn a_confirmation_for_an_earlier_table_does_not_count() {
        let mut followers = followers();
        confirm(&mut followers, SETTLED, "a", &["x-1", "x-2"]);
        // The process gets requests again, and drains again.
        followers.published(2, &routes(&["x-2"]));
        followers.published(3, &routes(&["x-1", "x-2"]));
        assert_eq!(drained(&followers, SETTLED), ["x-2"]);
        let again = ["x-1".parse().unwrap()].into();
        followers.confirmed(SETTLED, &id("a"), 3, again);
        assert_eq!(drained(&followers, SETTLED), ["x-1"]);
    }

    #[test]
    fn a_balancer_that_vanishes_is_waited_for_until_it_is_forgotten() {
        let mut followers = followers();
        followers.asked(SETTLED, Some(&id("a")));
        let forgotten = SETTLED.after(KNOWN_FOR);
        confirm(&mut followers, Timestamp(SETTLED.0 + 1), "b", &["x-1"]);
        assert_eq!(
            drained(&followers, Timestamp(forgotten.0 - 1)),
            [""; 0],
            "it may be cut off"
        );
        assert_eq!(drained(&followers, forgotten), ["x-1"]);
    }

    #[test]
    fn one_that_does_not_confirm_prevents_all() {
        let mut followers = followers();
        confirm(&mut followers, SETTLED, "a", &["x-1"]);
        followers.asked(SETTLED, None);
        assert_eq!(drained(&followers, SETTLED), [""; 0]);
        let forgotten = SETTLED.after(KNOWN_FOR);
        followers.asked(forgotten, Some(&id("a")));
        assert_eq!(drained(&followers, forgotten), ["x-1"]);
    }

    #[test]
    fn nothing_is_drained_until_balancers_can_have_returned() {
        let mut followers = followers();
        confirm(&mut followers, Timestamp(1), "a", &["x-1"]);
        assert_eq!(drained(&followers, Timestamp(4_999)), [""; 0]);
        assert_eq!(drained(&followers, Timestamp(5_000)), ["x-1"]);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut followers = followers();
        for number in 0..=MAX_FOLLOWERS {
            confirm(&mut followers, SETTLED, &format!("b{number}"), &["x-1"]);
        }
        assert_eq!(followers.known.len(), MAX_FOLLOWERS);
        assert_eq!(
            drained(&followers, SETTLED),
            [""; 0],
            "one is not told apart"
        );
    }
}
