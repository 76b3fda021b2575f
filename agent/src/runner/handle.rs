//! The interface of the runner's task for the rest of the agent.

use tokio::sync::{mpsc, oneshot, watch};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ProcessReport, ReportAccepted, SetIdentity},
    ids::{ClusterId, Generation, NodeName},
};

use super::events::Message;

/// Why a desired set was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredSetError {
    /// It is older than the stored one.
    #[error("generation {given} is older than generation {held}, which this agent has")]
    Stale {
        /// Its generation.
        given: String,
        /// The generation held.
        held: String,
        /// Whether its controller is older, not only the set.
        older_epoch: bool,
    },
    /// It is of another cluster.
    #[error(
        "the desired set is of cluster {given}, and this agent belongs to cluster {own}: its processes keep running. \
         `tucano adopt` at the new controller takes them over"
    )]
    OtherCluster {
        /// Its cluster.
        given: ClusterId,
        /// The agent's cluster.
        own: ClusterId,
    },
    /// Another set of the same generation is held.
    #[error("this agent holds another desired set of generation {generation}")]
    Conflicting {
        /// The generation.
        generation: Generation,
    },
    /// No controller can have come so far since the set that is held.
    #[error("generation {given} cannot follow {held}, which this agent holds")]
    Absurd {
        /// Its generation.
        given: String,
        /// The generation held.
        held: String,
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

impl DesiredSetError {
    /// Its code in the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale_generation",
            Self::OtherCluster { .. } => "other_cluster",
            Self::Conflicting { .. } => "conflicting_set",
            Self::Absurd { .. } => "absurd_generation",
            Self::WrongNode { .. } => "wrong_node",
            Self::NotStored(_) => "not_kept",
            Self::Ending => "ending",
        }
    }

    /// Whether the next set does not put it right: it is reported until a set is accepted.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Stale { older_epoch, .. } => *older_epoch,
            Self::OtherCluster { .. } | Self::Conflicting { .. } | Self::Absurd { .. } => true,
            Self::WrongNode { .. } | Self::NotStored(_) | Self::Ending => false,
        }
    }
}

/// The runner's part of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Generation of the stored desired set.
    pub generation: Generation,
    /// Cluster, epoch and digest of that set.
    pub identity: SetIdentity,
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

    /// The processes of the desired set that is held.
    pub async fn held(&self) -> Result<Vec<DesiredProcess>, DesiredSetError> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Held(answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| DesiredSetError::Ending)?;
        answered.await.map_err(|_| DesiredSetError::Ending)
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
