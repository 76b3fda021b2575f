//! Follows the controller's feed of the services that processes of this node need, while any needs one.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};
use tokio::time::sleep;
use tucano_api::names::Names;

use crate::{
    address::local_address,
    answers::{self, BodyError},
    credentials::Credentials,
    errors::root_cause,
    runner::execute::Executor,
    settings::Settings,
    tls::Tls,
};

/// Pause after a failed request.
const RETRY: Duration = Duration::from_secs(1);
/// Time limit of a request: longer than the controller waits for a change.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Largest answer that is read: thousands of services with their endpoints.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// The feed's follower.
#[derive(Debug)]
pub struct Follower {
    settings: Arc<Settings>,
    executor: Arc<Executor>,
    credentials: Arc<Credentials>,
    tls: Arc<Tls>,
    /// The client, with the certificate that it presents.
    client: Option<(Option<String>, Client)>,
    /// A repeated failure is logged once.
    last_failure: Option<String>,
}

impl Follower {
    /// Begins with what an earlier agent has stored.
    pub fn new(
        settings: Arc<Settings>,
        executor: Arc<Executor>,
        credentials: Arc<Credentials>,
        tls: Arc<Tls>,
    ) -> Self {
        Self {
            settings,
            executor,
            credentials,
            tls,
            client: None,
            last_failure: None,
        }
    }

    /// Follows until the future is dropped.
    pub async fn run(mut self) {
        self.tls.ready().await;
        let mut needs = self.executor.network.needs_changes();
        loop {
            needs.borrow_and_update();
            if !self.executor.network.needs_services() {
                if needs.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let outcome = self.poll().await;
            self.log(outcome.as_ref().err());
            match outcome {
                Ok(Some(names)) => self.learn(names).await,
                Ok(None) => {}
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    async fn poll(&mut self) -> Result<Option<Names>, String> {
        let ip = self.settings.ip.map_or_else(
            || local_address(&self.settings.controller).map_err(|error| error.to_string()),
            Ok,
        )?;
        let mut query = vec![("ip", ip.to_string())];
        let node = self.settings.name.as_ref();
        query.extend(node.map(|node| ("node", node.to_string())));
        let after = self.executor.network.names_version();
        query.extend(after.map(|after| ("after", after)));
        let query: Vec<String> = query
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let url = format!("{}/v1/names?{}", self.settings.controller, query.join("&"));
        let client = self.client()?;
        let response = self.credentials.send(|| client.get(&url)).await;
        let mut response = response.map_err(|error| root_cause(&error))?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let mut body = Vec::new();
        let read = answers::read_body(&mut response, MAX_RESPONSE_BYTES, &mut body).await;
        read.map_err(|error| match error {
            BodyError::Broken(error) => root_cause(&error),
            BodyError::TooLong => "its answer is longer than 64 MiB".to_owned(),
        })?;
        if !status.is_success() {
            let reason = answers::reason(&body).unwrap_or_else(|| "no reason given".to_owned());
            return Err(format!(
                "it refused with status {}: {reason}",
                status.as_u16()
            ));
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| format!("its answer is invalid: {error}"))
    }

    async fn learn(&self, names: Names) {
        tracing::debug!(version = %names.version, services = names.services.len(), gone = names.gone.len(), "names");
        if let Err(error) = self.executor.network.learn(names).await {
            tracing::warn!(%error, "cannot connect processes to the services that they need");
        }
        let (data, known) = (
            Arc::clone(&self.executor.data),
            self.executor.network.names(),
        );
        let stored = tokio::task::spawn_blocking(move || data.store_names(&known)).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(%error, "cannot store what is known of services for the next agent");
        }
    }

    /// Connections present the certificate of their handshake: with a new one, the client is replaced.
    fn client(&mut self) -> Result<Client, String> {
        let leaf = self.credentials.certificates().current();
        let certificate = leaf.map(|leaf| leaf.pem().to_owned());
        if let Some((of, client)) = &self.client
            && *of == certificate
        {
            return Ok(client.clone());
        }
        let client = self.credentials.client();
        let client = client.map_err(|error| error.to_string())?;
        let client = client.timeout(REQUEST_TIMEOUT).build();
        let client = client.map_err(|error| root_cause(&error))?;
        self.client = Some((certificate, client.clone()));
        Ok(client)
    }

    fn log(&mut self, failure: Option<&String>) {
        if let Some(failure) = failure.filter(|it| self.last_failure.as_ref() != Some(*it)) {
            tracing::warn!(controller = %self.settings.controller, %failure, "cannot ask the controller for services");
        }
        self.last_failure = failure.cloned();
    }
}
