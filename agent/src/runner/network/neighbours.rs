//! Pings the nodes whose processes this node's processes reach, and has connections go to other nodes than silent ones.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{
    Network,
    ping::Pinger,
    suspicion::{PINGS, Suspicion},
};

/// Pings a second of all nodes together. With more than a few hundred nodes each is pinged less often, and suspected later.
const PINGS_PER_SECOND: u32 = 2000;

impl Network {
    /// Suspects nodes that have not answered for about `suspect_after`, until the future is dropped.
    pub async fn watch_neighbours(&self, suspect_after: Duration) {
        if suspect_after.is_zero() {
            return std::future::pending().await;
        }
        let pinger = match Pinger::open() {
            Ok(pinger) => pinger,
            Err(error) => {
                tracing::warn!(%error, "cannot ping other nodes: silent ones are used until the controller gives them up");
                return std::future::pending().await;
            }
        };
        let mut names = self.names_changed.subscribe();
        let mut needs = self.needs_changed.subscribe();
        names.mark_changed();
        let mut suspicion = Suspicion::default();
        let mut silent = BTreeSet::new();
        loop {
            let is_changed = |it: &watch::Receiver<()>| it.has_changed().unwrap_or(true);
            if is_changed(&names) || is_changed(&needs) {
                names.mark_unchanged();
                needs.mark_unchanged();
                suspicion.watch(&self.neighbours());
            }
            let next = suspicion.next();
            if next.is_empty() {
                tokio::select! {
                    _ = names.changed() => names.mark_changed(),
                    _ = needs.changed() => needs.mark_changed(),
                }
                continue;
            }
            for (ip, number) in &next {
                if pinger.send(*ip, *number) {
                    suspicion.sent(*ip, *number);
                }
            }
            // After a pause of this machine, answers are awaited as long as ever.
            sleep(round(suspect_after, next.len())).await;
            while let Some((ip, number)) = pinger.receive() {
                suspicion.answered(ip, number);
            }
            silent = self.suspect(silent, suspicion.silent()).await;
        }
    }

    /// The other nodes that processes of this node reach.
    fn neighbours(&self) -> BTreeSet<Ipv4Addr> {
        let services = &self.state().services;
        match services.are_needed() {
            true => services.neighbours(),
            false => BTreeSet::new(),
        }
    }

    /// Avoids the nodes that are `now` silent, where they were `before`. Which ones the rules in force avoid.
    async fn suspect(
        &self,
        before: BTreeSet<Ipv4Addr>,
        now: BTreeSet<Ipv4Addr>,
    ) -> BTreeSet<Ipv4Addr> {
        if before == now {
            return now;
        }
        for ip in now.difference(&before) {
            tracing::warn!(%ip, "a node does not answer pings: connections go to other nodes where a service has any");
        }
        for ip in before.difference(&now) {
            tracing::info!(%ip, "a node answers pings again");
        }
        self.state().services.set_silent(now.clone());
        match self.enforce().await {
            Ok(()) => now,
            Err(error) => {
                tracing::warn!(%error, "cannot change the endpoints of services");
                before
            }
        }
    }
}

/// Time between two pings of a node.
fn round(suspect_after: Duration, neighbours: usize) -> Duration {
    let neighbours = u32::try_from(neighbours).unwrap_or(u32::MAX);
    let least = Duration::from_secs(1) * neighbours / PINGS_PER_SECOND;
    (suspect_after / PINGS).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_nodes_are_pinged_less_often() {
        let suspect_after = Duration::from_millis(600);
        assert_eq!(round(suspect_after, 1), Duration::from_millis(150));
        assert_eq!(round(suspect_after, 300), Duration::from_millis(150));
        assert_eq!(round(suspect_after, 2000), Duration::from_secs(1));
    }
}
