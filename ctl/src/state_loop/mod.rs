//! The task that owns the planner's `Cluster`. It feeds every event to the planner, stores the resulting records, and only
//! then executes the actions.
//!
//! ```text
//!            decide + step            persist (fsync)            act
//! message ──────────────────► records ───────────────► assign, publish, restart, alert ──► reply, `changes`
//!                                │ fails
//!                                ├─ request of the sysadmin: the cluster is rolled back, the request is refused
//!                                └─ observed event: all actions are pending until storing works again
//! ```

pub mod clock;
pub mod metrics;
mod pending_writes;
mod run;
#[cfg(test)]
mod tests;

use tokio::sync::{mpsc, oneshot, watch};
use tucano_planner::{Cluster, Event};

pub use self::run::{EffectSink, StateLoop};
use crate::store::AlertId;

/// Capacity of the task's inbox; senders wait when it is full.
const INBOX: usize = 1024;

/// Sends messages to the state loop.
#[derive(Debug, Clone)]
pub struct StateHandle {
    messages: mpsc::Sender<Message>,
    changes: watch::Receiver<u64>,
}

/// The state loop's ends of the channels.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    changed: watch::Sender<u64>,
}

/// Why a request was not executed; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The disk or the database is full.
    #[error("{0}")]
    Full(String),
    /// It could not be stored.
    #[error("{0}")]
    Store(String),
    /// The controller is shutting down.
    #[error("the controller is shutting down: try again in a moment")]
    Stopping,
}

/// Why a [`StateHandle::transact`] did nothing.
#[derive(Debug)]
pub enum TransactError<E> {
    /// The caller's `decide` returned an error.
    Rejected(E),
    /// It could not be stored.
    Refused(Refused),
}

impl<E: From<Refused>> TransactError<E> {
    /// The error of `decide`, which can be a refusal as well.
    pub fn into_inner(self) -> E {
        match self {
            Self::Rejected(error) => error,
            Self::Refused(refused) => refused.into(),
        }
    }
}

impl StateHandle {
    /// A handle, and the inbox to start the task with.
    pub fn channel() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(INBOX);
        let (changed, changes) = watch::channel(0);
        let state = Self {
            messages: sender,
            changes,
        };
        let inbox = Inbox {
            messages: receiver,
            changed,
        };
        (state, inbox)
    }

    /// Reports an event that cannot be refused. Returns when the cluster has processed it.
    ///
    /// # Errors
    /// Only [`Refused::Stopping`].
    pub async fn observe(&self, event: Event) -> Result<(), Refused> {
        let (done, noted) = oneshot::channel();
        self.send(Message::Observe(Box::new(event), done)).await?;
        noted.await.map_err(|_| Refused::Stopping)
    }

    /// Requests a change; returns when it is durable.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn apply(&self, event: Event) -> Result<(), Refused> {
        let decide = move |_: &Cluster| Ok::<_, std::convert::Infallible>((event, ()));
        match self.transact(decide, |_, ()| ()).await {
            Ok(()) => Ok(()),
            Err(TransactError::Refused(refused)) => Err(refused),
            Err(TransactError::Rejected(never)) => match never {},
        }
    }

    /// Atomically decides on a change by the cluster's state, applies it, and reads the result. `read` receives what
    /// `decide` returns beside the event.
    ///
    /// # Errors
    /// The error of `decide`, or why the change could not be stored; nothing has changed then.
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

    /// Reads the cluster's durable state.
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
                tracing::trace!("the caller of a query is gone");
            }
        };
        self.send(Message::Query(Box::new(query))).await?;
        answer.await.map_err(|_| Refused::Stopping)
    }

    /// Every webhook is done with an alert: its record is removed. Does not wait for that.
    pub async fn alert_delivered(&self, id: AlertId) -> Result<(), Refused> {
        self.send(Message::AlertDelivered(id)).await
    }

    /// Changes whenever the cluster may have changed.
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

/// Messages to the task.
enum Message {
    Observe(Box<Event>, oneshot::Sender<()>),
    Transact(Box<dyn Transact>),
    Query(Box<dyn FnOnce(&Cluster) + Send>),
    AlertDelivered(AlertId),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Observe(..) => "Observe",
            Self::Transact(_) => "Transact",
            Self::Query(_) => "Query",
            Self::AlertDelivered(_) => "AlertDelivered",
        })
    }
}

/// A [`Transaction`] of any type.
trait Transact: Send {
    /// The event, or `None` if the caller's `decide` rejected the change.
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
            tracing::debug!("the caller of a change is gone; the change is in force");
        }
    }
}
