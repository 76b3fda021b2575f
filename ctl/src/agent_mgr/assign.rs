//! One task per node that sends the node's newest desired set to its agent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tucano_api::{
    agent::{DesiredSet, SetIdentity},
    ids::{Generation, NodeName},
};

use super::client::{AgentAddress, AgentClient, AgentError};

/// Pause after a failed attempt; a report of the agent ends it early.
const RETRY: Duration = Duration::from_secs(1);
/// Pause between connections to an unreachable agent that needs no set.
const RETRY_IDLE: Duration = Duration::from_secs(5);
/// Attempts to send the empty set to a node that has left the topology.
const REMOVED_NODE_ATTEMPTS: u32 = 30;

/// A node's desired set and what its agent has of it. Dropping it aborts the task.
#[derive(Debug)]
pub(super) struct AssignmentTask {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
    /// The agent that answers at the node's address.
    agent: Option<String>,
    /// Whether the last connection to the agent failed.
    unreachable: Arc<AtomicBool>,
    /// What the planner was last told of that.
    reported_unreachable: bool,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    set: Option<Arc<DesiredSet>>,
    address: Option<AgentAddress>,
    /// The set that the agent reports to have, if it has reported since the set above was assigned.
    seen: Option<(SetIdentity, Generation)>,
}

impl Wanted {
    /// The set to send now, and its destination.
    fn due(&self) -> Option<(AgentAddress, Arc<DesiredSet>)> {
        Some((self.address?, self.missing()?))
    }

    /// The set, if the agent does not have it.
    fn missing(&self) -> Option<Arc<DesiredSet>> {
        let set = self.set.as_ref()?;
        let has = self.seen.as_ref().is_some_and(|seen| has(seen, set));
        (!has).then(|| set.clone())
    }
}

/// Whether an agent that reports this holds the set. One that does not report identities is compared by its generation.
fn has((identity, generation): &(SetIdentity, Generation), set: &DesiredSet) -> bool {
    if identity.is_legacy() {
        return *generation >= set.generation && !generation.is_absurd_after(set.generation);
    }
    let same_digest = identity.digest.is_none() || identity.digest == set.identity.digest;
    (identity.epoch, *generation) == (set.identity.epoch, set.generation) && same_digest
}

impl Drop for AssignmentTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AssignmentTask {
    pub(super) fn start(node: NodeName, client: AgentClient) -> Self {
        let wanted = watch::Sender::new(Wanted::default());
        let unreachable = Arc::new(AtomicBool::new(false));
        let push = push_all(node, wanted.subscribe(), client, unreachable.clone());
        Self {
            task: tokio::spawn(push),
            wanted,
            agent: None,
            unreachable,
            reported_unreachable: false,
        }
    }

    pub(super) fn assign(&self, set: DesiredSet) {
        self.wanted.send_if_modified(|wanted| {
            // Whatever the agent reported before was another set.
            wanted.seen = None;
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

    /// Records what a report says the agent holds, and wakes the task: the agent is reachable.
    pub(super) fn reported(&self, identity: SetIdentity, generation: Generation) {
        self.wanted.send_if_modified(|wanted| {
            wanted.seen = Some((identity, generation));
            wanted.due().is_some()
        });
    }

    /// The set that the agent does not have and cannot be sent: it goes with the answer to a report.
    pub(super) fn undelivered(&self) -> Option<DesiredSet> {
        let set = self.wanted.borrow().missing()?;
        let unreachable = self.unreachable.load(Ordering::Relaxed);
        unreachable.then(|| (*set).clone())
    }

    /// Whether the agent can be reached, if that has changed since the last call.
    pub(super) fn changed_reachability(&mut self) -> Option<bool> {
        let unreachable = self.unreachable.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut self.reported_unreachable, unreachable);
        (before != unreachable).then_some(!unreachable)
    }

    pub(super) fn address(&self) -> Option<AgentAddress> {
        self.wanted.borrow().address
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.wanted.borrow().set.as_ref().map(|set| set.generation)
    }
}

async fn push_all(
    node: NodeName,
    mut wanted: watch::Receiver<Wanted>,
    client: AgentClient,
    unreachable: Arc<AtomicBool>,
) {
    // A set that was accepted is not sent again before the agent had time to report it.
    let (mut taken, mut failures) = (None, 0);
    loop {
        let due = wanted.borrow_and_update().due();
        let is_given_up = failures > REMOVED_NODE_ATTEMPTS && !client.knows(&node);
        let is_new = |(at, set): &(AgentAddress, Arc<DesiredSet>)| {
            taken != Some((*at, set.identity.epoch, set.generation)) && !is_given_up
        };
        let Some((address, set)) = due.filter(is_new) else {
            taken = None;
            if unreachable.load(Ordering::Relaxed) {
                let address = wanted.borrow().address;
                match try_again(address, &mut wanted, &client).await {
                    Ok(reached) => unreachable.store(!reached, Ordering::Relaxed),
                    Err(Ended) => return,
                }
            } else if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        match client.assign(address, &set).await {
            Ok(()) => {
                unreachable.store(false, Ordering::Relaxed);
                (taken, failures) = (Some((address, set.identity.epoch, set.generation)), 0);
            }
            Err(error) => {
                failures += 1;
                let failed = matches!(
                    error,
                    AgentError::Unreachable { .. } | AgentError::Timeout { .. }
                );
                unreachable.store(failed, Ordering::Relaxed);
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

/// The node's assignment was dropped.
struct Ended;

/// Connects to an agent that could not be reached and has nothing to be sent. Whether it can be reached again.
async fn try_again(
    address: Option<AgentAddress>,
    wanted: &mut watch::Receiver<Wanted>,
    client: &AgentClient,
) -> Result<bool, Ended> {
    match tokio::time::timeout(RETRY_IDLE, wanted.changed()).await {
        Ok(Ok(())) => return Ok(false),
        Ok(Err(_)) => return Err(Ended),
        Err(_) => {}
    }
    match address {
        Some(address) => Ok(client.probe(address.socket).await.is_ok()),
        None => Ok(false),
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
mod tests;
