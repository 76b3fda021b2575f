//! The task itself.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tucano_api::{agent::DesiredSet, ids::NodeName, routes::ServiceRoute};
use tucano_planner::{Action, Cluster, Event, Record};

use super::{Inbox, Message, Refused, Transact, clock::Clock, held::Held, metrics::BrainMetrics};
use crate::store::{AlertId, KeptAlert, Store, StoreError};

/// Time between two tries to store what is held back: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Shortest time between two ticks, whatever deadline the planner names.
const TICK: Duration = Duration::from_millis(2);

/// What the task does to the world. None of it may block.
pub trait Effects: Send + 'static {
    /// Sends a desired set to its node.
    fn assign(&self, set: DesiredSet);
    /// Gives these routes to the balancer.
    fn publish(&self, routes: Vec<ServiceRoute>);
    /// Runs a worker's restart command.
    fn restart(&self, node: NodeName, attempt: u32);
    /// Tells the sysadmin; then [`super::Brain::told`] is to be called.
    fn alert(&self, alert: KeptAlert);
    /// Some image may be in use no more.
    fn images_released(&self);
}

/// The task that owns the cluster.
#[derive(Debug)]
pub struct Actor<E> {
    /// The cluster, as restored.
    pub cluster: Cluster,
    /// Its time.
    pub clock: Clock,
    /// Where it is stored.
    pub store: Store,
    /// What it does to the world.
    pub effects: E,
    /// What it counts.
    pub metrics: BrainMetrics,
}

impl<E: Effects> Actor<E> {
    /// Works until `stop`.
    pub async fn run(self, inbox: Inbox, stop: CancellationToken) {
        let Inbox {
            mut messages,
            changed,
        } = inbox;
        let mut work = Work {
            actor: self,
            changed,
            held: Held::default(),
            retry: None,
            delay: RETRY.0,
        };
        let mut ticked = Instant::now();
        loop {
            let tick_at = work.next_tick().map(|at| at.max(ticked + TICK));
            if tick_at.is_some_and(|at| at <= Instant::now()) {
                // Reports that came in while something took long are heard before anyone is missed.
                for _ in 0..messages.len() {
                    if let Ok(message) = messages.try_recv() {
                        work.take(message).await;
                    }
                }
                ticked = Instant::now();
                work.note(Event::Tick).await;
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
        if !work.held.is_empty() {
            tracing::error!(
                "ending with records that could not be stored; agents will report again"
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

struct Work<E> {
    actor: Actor<E>,
    changed: watch::Sender<u64>,
    held: Held,
    retry: Option<Instant>,
    delay: Duration,
}

impl<E: Effects> Work<E> {
    fn next_tick(&self) -> Option<Instant> {
        let deadline = self.actor.cluster.next_deadline()?;
        Some(self.actor.clock.instant_of(deadline))
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Query(read) => read(&self.actor.cluster),
            Message::Note(event, done) => {
                self.note(*event).await;
                if done.send(()).is_err() {
                    tracing::trace!("nobody waits for an event any more");
                }
            }
            Message::Transact(transaction) => self.transact(transaction).await,
            Message::Told(id) => {
                if let Err(error) = self.actor.store.told(id).await {
                    tracing::warn!(%error, "an alert that has been told is still kept, and is told again after the next start");
                }
            }
        }
    }

    /// Takes in what has happened anyway: what cannot be stored now is held back.
    async fn note(&mut self, event: Event) {
        let (records, actions) = self.step(event);
        if !self.held.is_empty() {
            self.held.push(records, actions);
        } else {
            match self.persist(&records, &actions).await {
                Ok(alerts) => self.act(actions, alerts),
                Err(error) => {
                    tracing::error!(%error, "cannot store what happened: nothing leaves the controller until it can");
                    self.held.push(records, actions);
                    self.retry_later();
                }
            }
        }
        self.bump();
    }

    /// Does what was asked for, or nothing.
    async fn transact(&mut self, mut transaction: Box<dyn Transact>) {
        if let Err(refused) = self.flush().await {
            return transaction.finish(Err(refused));
        }
        let Some(event) = transaction.decide(&self.actor.cluster) else {
            return transaction.finish(Ok(&self.actor.cluster));
        };
        let before = self.actor.cluster.clone();
        let (records, actions) = self.step(event);
        let alerts = match self.persist(&records, &actions).await {
            Ok(alerts) => alerts,
            Err(error) => {
                tracing::error!(%error, "a change was refused");
                self.actor.cluster = before;
                return transaction.finish(Err(refusal(&error)));
            }
        };
        self.act(actions, alerts);
        self.bump();
        transaction.finish(Ok(&self.actor.cluster));
    }

    /// Lets the planner decide; the records of all its actions make one transaction, which comes first.
    fn step(&mut self, event: Event) -> (Vec<Record>, Vec<Action>) {
        self.actor.metrics.event(&event);
        let now = self.actor.clock.now();
        let (mut records, mut actions) = (Vec::new(), Vec::new());
        for action in self.actor.cluster.step(now, event) {
            match action {
                Action::Persist(more) => records.extend(more),
                other => actions.push(other),
            }
        }
        (records, actions)
    }

    /// Stores the records, and the alerts among the actions; gives the alerts' ids.
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
        let stored = self.actor.store.persist(records.to_vec(), alerts).await;
        let ids = match stored {
            // There is nothing that must not be told before it is stored.
            Err(error) if records.is_empty() => {
                tracing::warn!(%error, "an alert cannot be stored: it is lost if the controller ends before it is told");
                Vec::new()
            }
            other => other?,
        };
        self.actor.metrics.persisted(started.elapsed());
        let releases = |record: &Record| {
            matches!(
                record,
                Record::Service(_) | Record::ServiceGone(_) | Record::ProcessGone(_)
            )
        };
        if records.iter().any(releases) {
            self.actor.effects.images_released();
        }
        Ok(ids)
    }

    /// Stores what is held back, if anything is.
    async fn flush(&mut self) -> Result<(), Refused> {
        if self.held.is_empty() {
            return Ok(());
        }
        let stored = self
            .persist(&self.held.records(), self.held.actions())
            .await;
        let alerts = match stored {
            Ok(alerts) => alerts,
            Err(error) => {
                tracing::warn!(%error, "still cannot store what happened");
                self.retry_later();
                return Err(refusal(&error));
            }
        };
        tracing::info!("what happened meanwhile is stored; going on");
        let actions = self.held.release();
        self.retry = None;
        self.delay = RETRY.0;
        self.actor.metrics.holding_back(false);
        self.act(actions, alerts);
        self.bump();
        Ok(())
    }

    fn retry_later(&mut self) {
        self.actor.metrics.holding_back(true);
        self.retry = Some(Instant::now() + self.delay);
        self.delay = (self.delay * 2).min(RETRY.1);
    }

    /// The ids are those of the alerts, in their order, as far as they are stored.
    fn act(&self, actions: Vec<Action>, alerts: Vec<AlertId>) {
        let effects = &self.actor.effects;
        let mut ids = alerts.into_iter();
        for action in actions {
            match action {
                Action::Assign(set) => effects.assign(set),
                Action::Publish(routes) => effects.publish(routes),
                Action::Restart { node, attempt } => effects.restart(node, attempt),
                Action::Alert(alert) => {
                    let id = ids.next();
                    effects.alert(KeptAlert { id, alert });
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
