//! The one task that owns the planner's `Cluster`. Everything that happens is told to it; it lets the planner
//! decide, stores what must be durable, and only then lets anything leave the controller.
//!
//! ```text
//!            decide + step            persist (fsync)            act
//! message ──────────────────► records ───────────────► assign, publish, restart, alert ──► reply, `changes`
//!                                │ refused
//!                                ├─ asked by the sysadmin: the cluster is as before, the request is refused
//!                                └─ happened by itself: all actions are held back until storing works again
//! ```

mod actor;
pub mod clock;
mod held;
pub mod metrics;
#[cfg(test)]
mod tests;

use tokio::sync::{mpsc, oneshot, watch};
use tucano_planner::{Cluster, Event};

pub use self::actor::{Actor, Effects};
use crate::store::AlertId;

/// Most messages waiting for the task; senders wait beyond that.
const INBOX: usize = 1024;

/// The way to the cluster's task.
#[derive(Debug, Clone)]
pub struct Brain {
    messages: mpsc::Sender<Message>,
    changes: watch::Receiver<u64>,
}

/// The ends that the task itself needs.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    changed: watch::Sender<u64>,
}

/// Why something asked for was not done; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no room to store it.
    #[error("{0}")]
    Full(String),
    /// It could not be stored.
    #[error("{0}")]
    Store(String),
    /// The controller is about to end.
    #[error("the controller is shutting down: try again in a moment")]
    Stopping,
}

/// Why a [`Brain::transact`] did nothing.
#[derive(Debug)]
pub enum TransactError<E> {
    /// The caller's own decision.
    Rejected(E),
    /// It could not be stored.
    Refused(Refused),
}

impl Brain {
    /// A way to a task that is yet to be started with the other end.
    pub fn channel() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(INBOX);
        let (changed, changes) = watch::channel(0);
        let brain = Self {
            messages: sender,
            changes,
        };
        let inbox = Inbox {
            messages: receiver,
            changed,
        };
        (brain, inbox)
    }

    /// Tells of something that happened by itself. Returns when it has been taken in.
    ///
    /// # Errors
    /// Only [`Refused::Stopping`].
    pub async fn note(&self, event: Event) -> Result<(), Refused> {
        let (done, noted) = oneshot::channel();
        self.send(Message::Note(Box::new(event), done)).await?;
        noted.await.map_err(|_| Refused::Stopping)
    }

    /// Asks for a change, and returns when it is durable.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn apply(&self, event: Event) -> Result<(), Refused> {
        let decide = move |_: &Cluster| Ok::<_, std::convert::Infallible>((event, ()));
        match self.transact(decide, |_, ()| ()).await {
            Ok(()) => Ok(()),
            Err(TransactError::Refused(refused)) => Err(refused),
            Err(TransactError::Rejected(never)) => match never {},
        }
    }

    /// Looks at the cluster, decides on a change, and reads what became of it, with nothing in between. What `decide`
    /// returns beside the event is handed to `read`.
    ///
    /// # Errors
    /// What `decide` says, or why the change could not be stored; nothing has changed then.
    pub async fn transact<C, T, E>(
        &self,
        decide: impl FnOnce(&Cluster) -> Result<(Event, C), E> + Send + 'static,
        read: impl FnOnce(&Cluster, C) -> T + Send + 'static,
    ) -> Result<T, TransactError<E>>
    where
        C: Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let transaction = Transaction {
            decide: Some(decide),
            read,
            decided: None,
            reply,
        };
        self.send(Message::Transact(Box::new(transaction)))
            .await
            .map_err(TransactError::Refused)?;
        answer
            .await
            .unwrap_or(Err(TransactError::Refused(Refused::Stopping)))
    }

    /// Reads from the cluster; sees only what is durable.
    ///
    /// # Errors
    /// Only [`Refused::Stopping`].
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Cluster) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let query = move |cluster: &Cluster| {
            if reply.send(read(cluster)).is_err() {
                tracing::trace!("nobody waits for a query any more");
            }
        };
        self.send(Message::Query(Box::new(query))).await?;
        answer.await.map_err(|_| Refused::Stopping)
    }

    /// An alert has been told to everybody, and need not be kept. Does not wait for that.
    pub async fn told(&self, id: AlertId) -> Result<(), Refused> {
        self.send(Message::Told(id)).await
    }

    /// Changes whenever the cluster may have.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    async fn send(&self, message: Message) -> Result<(), Refused> {
        self.messages
            .send(message)
            .await
            .map_err(|_| Refused::Stopping)
    }
}

/// What the task is told.
enum Message {
    Note(Box<Event>, oneshot::Sender<()>),
    Transact(Box<dyn Transact>),
    Query(Box<dyn FnOnce(&Cluster) + Send>),
    Told(AlertId),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Note(..) => "Note",
            Self::Transact(_) => "Transact",
            Self::Query(_) => "Query",
            Self::Told(_) => "Told",
        })
    }
}

/// A [`Transaction`] of any type.
trait Transact: Send {
    /// The event, or `None` when the caller decided against one and has been answered.
    fn decide(&mut self, cluster: &Cluster) -> Option<Event>;
    /// Answers the caller.
    fn finish(self: Box<Self>, outcome: Result<&Cluster, Refused>);
}

struct Transaction<D, R, C, T, E> {
    decide: Option<D>,
    read: R,
    decided: Option<Result<C, E>>,
    reply: oneshot::Sender<Result<T, TransactError<E>>>,
}

impl<D, R, C, T, E> Transact for Transaction<D, R, C, T, E>
where
    D: FnOnce(&Cluster) -> Result<(Event, C), E> + Send,
    R: FnOnce(&Cluster, C) -> T + Send,
    C: Send,
    T: Send,
    E: Send,
{
    fn decide(&mut self, cluster: &Cluster) -> Option<Event> {
        match self.decide.take()?(cluster) {
            Ok((event, context)) => {
                self.decided = Some(Ok(context));
                Some(event)
            }
            Err(rejected) => {
                self.decided = Some(Err(rejected));
                None
            }
        }
    }

    fn finish(self: Box<Self>, outcome: Result<&Cluster, Refused>) {
        let answer = match (outcome, self.decided) {
            (Err(refused), _) => Err(TransactError::Refused(refused)),
            (Ok(cluster), Some(Ok(context))) => Ok((self.read)(cluster, context)),
            (Ok(_), Some(Err(rejected))) => Err(TransactError::Rejected(rejected)),
            (Ok(_), None) => return,
        };
        if self.reply.send(answer).is_err() {
            tracing::debug!("nobody waits for a change any more; it stands");
        }
    }
}
