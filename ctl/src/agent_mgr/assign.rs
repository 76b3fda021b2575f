//! One task per node that sends the node's newest desired set to its agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use tucano_api::{
    agent::DesiredSet,
    ids::{Generation, NodeName},
};

use super::client::{AgentAddress, AgentClient, AgentError};

/// Pause after a failed attempt; a report of the agent ends it early.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts to send the empty set to a node that has left the topology.
const REMOVED_NODE_ATTEMPTS: u32 = 30;

/// A node's desired set and what its agent has of it. Dropping it aborts the task.
#[derive(Debug)]
pub(super) struct AssignmentTask {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
    /// The agent that answers at the node's address.
    agent: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    set: Option<Arc<DesiredSet>>,
    address: Option<AgentAddress>,
    /// Generation that the agent reports.
    seen: Generation,
}

impl Wanted {
    /// The set to send now, and its destination.
    fn due(&self) -> Option<(AgentAddress, Arc<DesiredSet>)> {
        let set = self.set.as_ref()?;
        (set.generation > self.seen).then_some((self.address?, set.clone()))
    }
}

impl Drop for AssignmentTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AssignmentTask {
    pub(super) fn start(node: NodeName, client: AgentClient) -> Self {
        let wanted = watch::Sender::new(Wanted::default());
        let task = tokio::spawn(push_all(node, wanted.subscribe(), client));
        Self {
            wanted,
            task,
            agent: None,
        }
    }

    pub(super) fn assign(&self, set: DesiredSet) {
        self.wanted.send_if_modified(|wanted| {
            // This set is newer than anything the agent has, whatever it reported before.
            wanted.seen = wanted
                .seen
                .min(Generation(set.generation.0.saturating_sub(1)));
            wanted.set = Some(Arc::new(set));
            true
        });
    }

    /// The agent's confirmed address, if it is this one.
    pub(super) fn reaches(&self, agent: &str, address: SocketAddr) -> Option<AgentAddress> {
        let known = self.address().filter(|known| known.socket == address)?;
        (self.agent.as_deref() == Some(agent)).then_some(known)
    }

    /// Records that this agent answered at this address.
    pub(super) fn confirmed_at(&mut self, agent: String, address: AgentAddress) {
        self.agent = Some(agent);
        self.wanted.send_if_modified(|wanted| {
            let moved = wanted.address != Some(address);
            wanted.address = Some(address);
            moved
        });
    }

    /// Records a report's generation and wakes the task: the agent is reachable.
    pub(super) fn reported_generation(&self, generation: Generation) {
        self.wanted.send_if_modified(|wanted| {
            wanted.seen = generation;
            wanted.due().is_some()
        });
    }

    pub(super) fn address(&self) -> Option<AgentAddress> {
        self.wanted.borrow().address
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.wanted.borrow().set.as_ref().map(|set| set.generation)
    }
}

async fn push_all(node: NodeName, mut wanted: watch::Receiver<Wanted>, client: AgentClient) {
    // A set that was accepted is not sent again before the agent had time to report it.
    let (mut taken, mut failures) = (None, 0);
    loop {
        let due = wanted.borrow_and_update().due();
        let is_given_up = failures > REMOVED_NODE_ATTEMPTS && !client.knows(&node);
        let is_new = |(at, set): &(AgentAddress, Arc<DesiredSet>)| {
            taken != Some((*at, set.generation)) && !is_given_up
        };
        let Some((address, set)) = due.filter(is_new) else {
            taken = None;
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        match client.assign(address, &set).await {
            Ok(()) => (taken, failures) = (Some((address, set.generation)), 0),
            Err(error) => {
                failures += 1;
                // Lost nodes have their own alert: one log line suffices here.
                if failures == 1 {
                    report_failure(&node, &set, &error);
                }
                let woken = tokio::time::timeout(RETRY, wanted.changed()).await;
                if matches!(woken, Ok(Err(_))) {
                    return;
                }
            }
        }
    }
}

fn report_failure(node: &NodeName, set: &DesiredSet, error: &AgentError) {
    match error {
        AgentError::Unreachable { .. } | AgentError::Timeout { .. } => {
            tracing::info!(%node, generation = %set.generation, %error, "a desired set could not be sent; retrying");
        }
        AgentError::Refused { .. } | AgentError::Malformed { .. } => {
            tracing::warn!(%node, generation = %set.generation, %error, "a desired set was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(generation: u64) -> DesiredSet {
        DesiredSet {
            node: "w1".parse().unwrap(),
            generation: Generation(generation),
            processes: Vec::new(),
        }
    }

    #[test]
    fn a_set_is_due_only_for_a_known_agent_that_is_behind() {
        let address = AgentAddress {
            socket: "127.0.0.1:1".parse().unwrap(),
            tls: false,
        };
        let mut wanted = Wanted {
            set: Some(Arc::new(set(2))),
            ..Wanted::default()
        };
        assert!(wanted.due().is_none());
        wanted.address = Some(address);
        assert_eq!(wanted.due().unwrap().1.generation, Generation(2));
        wanted.seen = Generation(2);
        assert!(wanted.due().is_none());
    }
}
