//! The interface of the runner's task for the rest of the agent.

use tokio::sync::{mpsc, oneshot, watch};
use tucano_api::{
    agent::{DesiredSet, ProcessReport, ReportAccepted},
    ids::{Generation, NodeName},
};

use super::events::Message;

/// Why a desired set was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredSetError {
    /// It is older than the stored one.
    #[error("generation {given} is older than generation {held}, which this agent has")]
    Stale {
        /// Its generation.
        given: Generation,
        /// The stored generation.
        held: Generation,
    },
    /// It is for another node.
    #[error("the desired set is for the node {given}, and this is {own}")]
    WrongNode {
        /// The node it is for.
        given: NodeName,
        /// This node.
        own: NodeName,
    },
    /// It cannot be stored.
    #[error("{0}")]
    NotStored(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// The runner's part of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Generation of the stored desired set.
    pub generation: Generation,
    /// Every process, ordered by id, without metrics.
    pub processes: Vec<ProcessReport>,
    /// Conditions of the node.
    pub notes: Vec<String>,
}

/// A handle to the runner's task.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) snapshot: watch::Receiver<Snapshot>,
}

impl Handle {
    /// Submits a desired set; it is on disk when its generation is returned.
    pub async fn desire(&self, set: DesiredSet) -> Result<Generation, DesiredSetError> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Desire(Box::new(set), answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| DesiredSetError::Ending)?;
        answered.await.map_err(|_| DesiredSetError::Ending)?
    }

    /// The number of processes, from the runner's task: a runner that hangs does not answer.
    pub async fn count(&self) -> Result<usize, DesiredSetError> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Count(answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| DesiredSetError::Ending)?;
        answered.await.map_err(|_| DesiredSetError::Ending)
    }

    /// Passes the controller's answer to a report on.
    pub async fn controller_answered(&self, answer: ReportAccepted) {
        // The runner ends only with the agent.
        drop(self.messages.send(Message::Answered(answer)).await);
    }

    /// The current snapshot and its changes.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }
}
