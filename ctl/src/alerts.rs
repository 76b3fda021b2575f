//! Alert delivery: each alert goes to the log and, as JSON, to each webhook.
//!
//! The planner emits one alert per change of state. Each webhook has its own queue and task, so that an unresponsive one
//! does not delay others. An alert is stored until every webhook has accepted it or was given up: after a crash the next
//! controller delivers it, possibly a second time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use backon::{ExponentialBuilder, Retryable};
use prometheus_client::metrics::counter::Counter;
use reqwest::Url;
use tokio::{sync::Notify, task::JoinHandle};
use tucano_api::state::Alert;

use crate::{
    config_mgr::{Config, ConfigManager},
    state_loop::StateHandle,
    store::{AlertId, StoredAlert},
};

/// Delivers alerts.
#[derive(Debug)]
pub struct Alerts {
    config: Arc<ConfigManager>,
    state: StateHandle,
    client: reqwest::Client,
    webhooks: Mutex<BTreeMap<Url, Webhook>>,
    /// Alerts sent since the start.
    pub sent: Counter,
    /// Alerts that a webhook never accepted.
    pub lost: Counter,
}

/// One webhook's queue and task; dropping it aborts the task.
#[derive(Debug)]
struct Webhook {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Queue {
    alerts: Mutex<VecDeque<Arc<Waiting>>>,
    added: Notify,
}

/// An alert that still has to reach some webhooks.
#[derive(Debug)]
struct Waiting {
    id: Option<AlertId>,
    alert: Alert,
    webhooks: AtomicUsize,
    state: StateHandle,
}

impl Waiting {
    /// One webhook is done. After the last one the stored alert is removed.
    fn settle(&self) {
        let is_last = self.webhooks.fetch_sub(1, Ordering::AcqRel) == 1;
        if let Some(id) = self.id.filter(|_| is_last) {
            let state = self.state.clone();
            // If the controller stops first, the next one delivers the alert again.
            tokio::spawn(async move { state.alert_delivered(id).await.ok() });
        }
    }
}

/// Why a webhook did not accept an alert.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("cannot reach it: {0}")]
    Unreachable(#[source] reqwest::Error),
    #[error("it answered {0}")]
    Status(reqwest::StatusCode),
}

impl Alerts {
    /// Delivers to the webhooks of the configuration in force at the time.
    pub fn new(config: Arc<ConfigManager>, state: StateHandle, client: reqwest::Client) -> Self {
        Self {
            config,
            state,
            client,
            webhooks: Mutex::default(),
            sent: Counter::default(),
            lost: Counter::default(),
        }
    }

    /// Logs the alert and queues it for each webhook. Does not block.
    pub fn send(&self, StoredAlert { id, alert }: StoredAlert) {
        tracing::warn!(kind = ?alert.kind, subject = alert.subject, "alert: {}", alert.message);
        self.sent.inc();
        let config = self.config.current();
        let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        webhooks.retain(|url, webhook| {
            let stays = config.webhooks.contains(url);
            if !stays {
                webhook.queue.settle_all();
            }
            stays
        });
        let waiting = Arc::new(Waiting {
            id,
            alert,
            // One extra until it is in all queues.
            webhooks: AtomicUsize::new(config.webhooks.len() + 1),
            state: self.state.clone(),
        });
        for url in &config.webhooks {
            let webhook = webhooks
                .entry(url.clone())
                .or_insert_with(|| self.start(url.clone()));
            let dropped = webhook
                .queue
                .push(waiting.clone(), config.limits.webhook_queue);
            if let Some(dropped) = dropped {
                dropped.settle();
                self.lost.inc();
                tracing::error!(webhook = %shown(url), "a webhook's queue is full (limits.webhook_queue): dropped the oldest alert");
            }
        }
        waiting.settle();
    }

    fn start(&self, url: Url) -> Webhook {
        let queue = Arc::new(Queue::default());
        let task = tokio::spawn(deliver_all(
            url,
            queue.clone(),
            self.client.clone(),
            self.config.clone(),
            self.lost.clone(),
        ));
        Webhook { queue, task }
    }
}

impl Queue {
    /// Adds an alert; returns the oldest one if it was dropped for lack of room.
    fn push(&self, waiting: Arc<Waiting>, limit: u64) -> Option<Arc<Waiting>> {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = alerts.len() as u64 >= limit;
        let dropped = is_full.then(|| alerts.pop_front()).flatten();
        alerts.push_back(waiting);
        self.added.notify_one();
        dropped
    }

    /// Drops all waiting alerts.
    fn settle_all(&self) {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        alerts.drain(..).for_each(|waiting| waiting.settle());
    }

    async fn pop(&self) -> Arc<Waiting> {
        loop {
            let next = self
                .alerts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match next {
                Some(waiting) => return waiting,
                None => self.added.notified().await,
            }
        }
    }
}

async fn deliver_all(
    url: Url,
    queue: Arc<Queue>,
    client: reqwest::Client,
    config: Arc<ConfigManager>,
    lost: Counter,
) {
    loop {
        let waiting = queue.pop().await;
        if let Err(error) = deliver(&client, &url, &waiting.alert, &config.current()).await {
            lost.inc();
            tracing::error!(webhook = %shown(&url), subject = waiting.alert.subject, %error, "an alert could not be delivered");
        }
        waiting.settle();
    }
}

async fn deliver(
    client: &reqwest::Client,
    url: &Url,
    alert: &Alert,
    config: &Config,
) -> Result<(), DeliveryError> {
    let attempt = || async {
        let answer = client
            .post(url.clone())
            .timeout(config.limits.webhook_timeout.0)
            .json(alert)
            .send()
            .await
            // The URL may hold a secret: the error must not contain it.
            .map_err(|error| DeliveryError::Unreachable(error.without_url()))?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(DeliveryError::Status(answer.status()))
        }
    };
    let tries = usize::try_from(config.limits.webhook_attempts).unwrap_or(usize::MAX);
    let pauses = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(std::time::Duration::from_millis(200))
        .with_max_times(tries.saturating_sub(1));
    attempt.retry(pauses).await
}

/// A webhook's URL without path, query and credentials, which may be secret.
pub(crate) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}
