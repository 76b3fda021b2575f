//! What the rest of the agent asks of the runner's task, and sees of it.

use tokio::sync::{mpsc, oneshot, watch};
use tucano_api::{
    agent::{DesiredSet, ProcessReport, ReportAccepted},
    ids::{Generation, NodeName},
};

use super::events::Message;

/// Why a desired set is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is older than the one held.
    #[error("generation {given} is older than {held}, which this agent holds")]
    Stale {
        /// Its generation.
        given: Generation,
        /// The generation held.
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
    /// It cannot be kept.
    #[error("{0}")]
    NotKept(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// What runs here: everything of a report that the runner knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Generation of the desired set that is held.
    pub generation: Generation,
    /// Every process, ordered by id, without metrics.
    pub processes: Vec<ProcessReport>,
    /// What went wrong that is no process's own.
    pub notes: Vec<String>,
}

/// The way to the runner.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) snapshot: watch::Receiver<Snapshot>,
}

impl Handle {
    /// Gives the runner a desired set; it is on disk when this returns its generation.
    pub async fn desire(&self, set: DesiredSet) -> Result<Generation, Refused> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Desire(Box::new(set), answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| Refused::Ending)?;
        answered.await.map_err(|_| Refused::Ending)?
    }

    /// How many processes there are, by the runner's own word.
    pub async fn count(&self) -> Result<usize, Refused> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Count(answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| Refused::Ending)?;
        answered.await.map_err(|_| Refused::Ending)
    }

    /// Tells the runner what the controller answered to a report.
    pub async fn controller_answered(&self, answer: ReportAccepted) {
        // A runner that has ended needs no answers.
        drop(self.messages.send(Message::Answered(answer)).await);
    }

    /// What runs, and every change of it.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }
}
