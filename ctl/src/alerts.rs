//! Telling the sysadmin: each alert goes to the log, and as JSON to each webhook.
//!
//! The planner sends one alert per change of state; here they are only delivered. Each webhook has its own queue and
//! its own task, so that one that does not answer holds up no other. An alert is stored until each webhook has taken it, or
//! was given up: what a controller that ends has not told, the next one does, to some perhaps again.

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
    brain::Brain,
    config_mgr::{Config, ConfigManager},
    store::{AlertId, KeptAlert},
};

/// Delivers alerts.
#[derive(Debug)]
pub struct Alerts {
    config: Arc<ConfigManager>,
    brain: Brain,
    client: reqwest::Client,
    webhooks: Mutex<BTreeMap<Url, Webhook>>,
    /// Alerts sent since the start.
    pub sent: Counter,
    /// Alerts that some webhook never took.
    pub lost: Counter,
}

/// One webhook's queue and task; the task ends with it.
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

/// An alert that waits for so many webhooks.
#[derive(Debug)]
struct Waiting {
    id: Option<AlertId>,
    alert: Alert,
    webhooks: AtomicUsize,
    brain: Brain,
}

impl Waiting {
    /// One fewer. After the last, the alert need not be kept.
    fn settle(&self) {
        let is_last = self.webhooks.fetch_sub(1, Ordering::AcqRel) == 1;
        if let Some(id) = self.id.filter(|_| is_last) {
            let brain = self.brain.clone();
            // A controller that ends meanwhile leaves it to the next one.
            tokio::spawn(async move { brain.told(id).await.ok() });
        }
    }
}

/// Why a webhook did not take an alert.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("cannot reach it: {0}")]
    Unreachable(#[source] reqwest::Error),
    #[error("it answered {0}")]
    Status(reqwest::StatusCode),
}

impl Alerts {
    /// Delivers to the webhooks of the configuration in force at the time.
    pub fn new(config: Arc<ConfigManager>, brain: Brain, client: reqwest::Client) -> Self {
        Self {
            config,
            brain,
            client,
            webhooks: Mutex::default(),
            sent: Counter::default(),
            lost: Counter::default(),
        }
    }

    /// Logs the alert and queues it for each webhook. Does not wait.
    pub fn send(&self, KeptAlert { id, alert }: KeptAlert) {
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
            // One more, until it is in all queues.
            webhooks: AtomicUsize::new(config.webhooks.len() + 1),
            brain: self.brain.clone(),
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
                tracing::error!(webhook = %shown(url), "too many alerts wait for a webhook: dropped the oldest");
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
    /// Adds an alert; gives the oldest, if that had to go for it.
    fn push(&self, waiting: Arc<Waiting>, limit: u64) -> Option<Arc<Waiting>> {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = alerts.len() as u64 >= limit;
        let dropped = is_full.then(|| alerts.pop_front()).flatten();
        alerts.push_back(waiting);
        self.added.notify_one();
        dropped
    }

    /// Nobody is told of those that wait.
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
            // The URL may hold a secret: it is shown without its path.
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

/// A webhook's URL without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}
