//! One task per node, which gets the node's newest desired set to its agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use tucano_api::{
    agent::DesiredSet,
    ids::{Generation, NodeName},
};

use super::client::{AgentAddress, AgentClient, AgentError};

/// Pause after a failed try; a report of the agent ends it early.
const RETRY: Duration = Duration::from_secs(1);
/// How often a node that has left the topology is told to stop everything before it is given up.
const FAREWELLS: u32 = 30;

/// What a node is to run, and how far it has heard of it. The task ends with it.
#[derive(Debug)]
pub(super) struct Runner {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
    /// The agent that answers at the node's address.
    agent: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    set: Option<Arc<DesiredSet>>,
    address: Option<AgentAddress>,
    /// Generation that the agent reports to have.
    seen: Generation,
}

impl Wanted {
    /// What is to be sent now, and where.
    fn due(&self) -> Option<(AgentAddress, Arc<DesiredSet>)> {
        let set = self.set.as_ref()?;
        (set.generation > self.seen).then_some((self.address?, set.clone()))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Runner {
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
            // What this says is newer than all the agent can have, whatever it reported before.
            wanted.seen = wanted
                .seen
                .min(Generation(set.generation.0.saturating_sub(1)));
            wanted.set = Some(Arc::new(set));
            true
        });
    }

    /// How this agent is reached, if it is known to be the one at this address.
    pub(super) fn reaches(&self, agent: &str, address: SocketAddr) -> Option<AgentAddress> {
        let known = self.address().filter(|known| known.socket == address)?;
        (self.agent.as_deref() == Some(agent)).then_some(known)
    }

    /// This agent was asked there, and answered.
    pub(super) fn is_reached_at(&mut self, agent: String, address: AgentAddress) {
        self.agent = Some(agent);
        self.wanted.send_if_modified(|wanted| {
            let moved = wanted.address != Some(address);
            wanted.address = Some(address);
            moved
        });
    }

    /// The agent has just reported, so it can be reached.
    pub(super) fn has_seen(&self, generation: Generation) {
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
    // What was taken is not sent again before the agent had the time to report it.
    let (mut taken, mut failures) = (None, 0);
    loop {
        let due = wanted.borrow_and_update().due();
        let is_given_up = failures > FAREWELLS && !client.knows(&node);
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
                // A node that is lost is told of elsewhere: once is enough here.
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
            tracing::info!(%node, generation = %set.generation, %error, "a desired set could not be sent; trying again");
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
    fn something_is_due_only_where_the_agent_is_known_and_behind() {
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
