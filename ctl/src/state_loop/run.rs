//! The state loop itself.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tucano_api::{agent::DesiredSet, ids::NodeName, routes::ServiceRoute};
use tucano_planner::{Action, Cluster, Event, NamesUpdate, Record};

use super::{
    Inbox, Message, Refused, Transact, clock::Clock, metrics::StateLoopMetrics,
    pending_writes::PendingWrites,
};
use crate::store::{AlertId, Store, StoreError, StoredAlert};

/// Back-off of retries to store pending writes: initial and maximum.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Shortest interval between ticks, whatever deadline the planner sets.
const TICK: Duration = Duration::from_millis(2);

/// Executes actions. No method may block.
pub trait EffectSink: Send + 'static {
    /// Sends a desired set to its node.
    fn assign(&self, set: DesiredSet);
    /// Publishes these routes to the balancer.
    fn publish(&self, routes: Vec<ServiceRoute>);
    /// Publishes what has changed of the names.
    fn publish_names(&self, update: NamesUpdate);
    /// Runs a worker's restart command.
    fn restart(&self, node: NodeName, attempt: u32);
    /// Sends an alert; [`super::StateHandle::alert_delivered`] follows.
    fn alert(&self, alert: StoredAlert);
    /// Some image may be unused now.
    fn images_released(&self);
}

/// The task that owns the cluster.
#[derive(Debug)]
pub struct StateLoop<E> {
    /// The cluster, as restored.
    pub cluster: Cluster,
    /// The planner's time.
    pub clock: Clock,
    /// The durable state.
    pub store: Store,
    /// Executes actions.
    pub effects: E,
    /// The loop's metrics.
    pub metrics: StateLoopMetrics,
}

impl<E: EffectSink> StateLoop<E> {
    /// Runs until `stop`.
    pub async fn run(self, inbox: Inbox, stop: CancellationToken) {
        let Inbox {
            mut messages,
            changed,
        } = inbox;
        let mut work = Worker {
            task: self,
            changed,
            pending: PendingWrites::default(),
            retry: None,
            delay: RETRY.0,
        };
        let mut ticked = Instant::now();
        loop {
            let tick_at = work.next_tick().map(|at| at.max(ticked + TICK));
            if tick_at.is_some_and(|at| at <= Instant::now()) {
                // Reports that arrived during a slow transaction count before leases are checked.
                for _ in 0..messages.len() {
                    if let Ok(message) = messages.try_recv() {
                        work.take(message).await;
                    }
                }
                ticked = Instant::now();
                work.observe(Event::Tick).await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                message = messages.recv() => match message {
                    Some(message) => work.take(message).await,
                    None => break,
                },
                () = at(tick_at) => {}
                () = at(work.retry) => work.flush().await.unwrap_or_default(),
            }
        }
        if !work.pending.is_empty() {
            tracing::error!(
                "shutting down with records that could not be stored; agents will report again"
            );
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Worker<E> {
    task: StateLoop<E>,
    changed: watch::Sender<u64>,
    pending: PendingWrites,
    retry: Option<Instant>,
    delay: Duration,
}

impl<E: EffectSink> Worker<E> {
    fn next_tick(&self) -> Option<Instant> {
        let deadline = self.task.cluster.next_deadline()?;
        Some(self.task.clock.instant_of(deadline))
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Query(read) => read(&self.task.cluster),
            Message::Observe(event, done) => {
                self.observe(*event).await;
                if done.send(()).is_err() {
                    tracing::trace!("the sender of an event is gone");
                }
            }
            Message::Transact(transaction) => self.transact(transaction).await,
            Message::AlertDelivered(id) => {
                if let Err(error) = self.task.store.forget_alert(id).await {
                    tracing::warn!(%error, "a delivered alert could not be removed and is delivered again after the next start");
                }
            }
        }
    }

    /// Processes an event that cannot be refused: what cannot be stored now is pending.
    async fn observe(&mut self, event: Event) {
        let (records, actions) = self.step(event);
        if !self.pending.is_empty() {
            self.pending.push(records, actions);
        } else {
            match self.persist(&records, &actions).await {
                Ok(alerts) => self.act(actions, alerts),
                Err(error) => {
                    tracing::error!(%error, "cannot store what happened: nothing leaves the controller until it can");
                    self.pending.push(records, actions);
                    self.retry_later();
                }
            }
        }
        self.bump();
    }

    /// Applies a requested change, or nothing of it.
    async fn transact(&mut self, mut transaction: Box<dyn Transact>) {
        if let Err(refused) = self.flush().await {
            return transaction.finish(Err(refused));
        }
        let Some(event) = transaction.decide(&self.task.cluster) else {
            return transaction.finish(Ok(&self.task.cluster));
        };
        let before = self.task.cluster.clone();
        let (records, actions) = self.step(event);
        let alerts = match self.persist(&records, &actions).await {
            Ok(alerts) => alerts,
            Err(error) => {
                tracing::error!(%error, "a change was refused");
                self.task.cluster = before;
                return transaction.finish(Err(refusal(&error)));
            }
        };
        self.act(actions, alerts);
        self.bump();
        transaction.finish(Ok(&self.task.cluster));
    }

    /// Runs the planner. The records of all actions form one transaction, which comes first.
    fn step(&mut self, event: Event) -> (Vec<Record>, Vec<Action>) {
        self.task.metrics.event(&event);
        let now = self.task.clock.now();
        let (mut records, mut actions) = (Vec::new(), Vec::new());
        for action in self.task.cluster.step(now, event) {
            match action {
                Action::Persist(more) => records.extend(more),
                other => actions.push(other),
            }
        }
        (records, actions)
    }

    /// Stores the records and the alerts among the actions; returns the alerts' ids.
    async fn persist(
        &self,
        records: &[Record],
        actions: &[Action],
    ) -> Result<Vec<AlertId>, StoreError> {
        let alerts = actions.iter().filter_map(|action| match action {
            Action::Alert(alert) => Some(alert.clone()),
            _ => None,
        });
        let alerts: Vec<_> = alerts.collect();
        if records.is_empty() && alerts.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let stored = self.task.store.persist(records.to_vec(), alerts).await;
        let ids = match stored {
            // No record depends on it: the alert is sent although it is not stored.
            Err(error) if records.is_empty() => {
                tracing::warn!(%error, "an alert cannot be stored: it is lost if the controller stops before it is delivered");
                Vec::new()
            }
            other => other?,
        };
        self.task.metrics.persisted(started.elapsed());
        let releases = |record: &Record| {
            matches!(
                record,
                Record::Service(_) | Record::ServiceGone(_) | Record::ProcessGone(_)
            )
        };
        if records.iter().any(releases) {
            self.task.effects.images_released();
        }
        Ok(ids)
    }

    /// Stores the pending writes, if there are any.
    async fn flush(&mut self) -> Result<(), Refused> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let stored = self
            .persist(&self.pending.records(), self.pending.actions())
            .await;
        let alerts = match stored {
            Ok(alerts) => alerts,
            Err(error) => {
                tracing::warn!(%error, "still cannot store what happened");
                self.retry_later();
                return Err(refusal(&error));
            }
        };
        tracing::info!("the pending writes are stored");
        let actions = self.pending.release();
        self.retry = None;
        self.delay = RETRY.0;
        self.task.metrics.holding_back(false);
        self.act(actions, alerts);
        self.bump();
        Ok(())
    }

    fn retry_later(&mut self) {
        self.task.metrics.holding_back(true);
        self.retry = Some(Instant::now() + self.delay);
        self.delay = (self.delay * 2).min(RETRY.1);
    }

    /// `alerts` has the ids of the stored alerts among the actions, in order.
    fn act(&self, actions: Vec<Action>, alerts: Vec<AlertId>) {
        let effects = &self.task.effects;
        let mut ids = alerts.into_iter();
        for action in actions {
            match action {
                Action::Assign(set) => effects.assign(set),
                Action::Publish(routes) => effects.publish(routes),
                Action::Names(update) => effects.publish_names(update),
                Action::Restart { node, attempt } => effects.restart(node, attempt),
                Action::Alert(alert) => {
                    let id = ids.next();
                    effects.alert(StoredAlert { id, alert });
                }
                Action::Persist(_) => tracing::error!("records were not stored with their step"),
            }
        }
    }

    fn bump(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn refusal(error: &StoreError) -> Refused {
    if error.is_full() {
        Refused::Full(error.to_string())
    } else {
        Refused::Store(error.to_string())
    }
}
