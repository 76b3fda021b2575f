//! The agent's certificate: requested from the controller with a key that never leaves this node, and renewed in time.
//!
//! `<data_dir>/tls/` holds `key.pem` and `certificate.pem`.

mod connections;
mod listener;

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use listener::{Peer, SniffingListener};
use reqwest::StatusCode;
use tokio::{sync::watch, time::sleep};
use tucano_api::agent::{Certificate, CertificateRequest};
use tucano_tls::{Error, Leaf, Mode, ProtocolSniffer, leaf::Files};

use crate::{
    address::{is_loopback, local_address},
    answers,
    credentials::Credentials,
    errors::root_cause,
    settings::Settings,
};

/// Pause after a failed request while there is no certificate.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Pause between two checks of a valid certificate's remaining life.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Time limit of one certificate request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The agent's key, certificate, and whether the controller can connect yet.
#[derive(Debug)]
pub struct Tls {
    settings: Arc<Settings>,
    /// `None` where TLS is off.
    files: Option<Files>,
    credentials: Arc<Credentials>,
    is_ready: watch::Sender<bool>,
}

impl Tls {
    /// Opens the key and loads the certificate of an earlier agent if it is still valid for this node.
    ///
    /// # Errors
    /// The key or certificate file cannot be read or written.
    pub fn open(settings: Arc<Settings>, credentials: Arc<Credentials>) -> Result<Self, Error> {
        let files = match settings.tls_mode() {
            Mode::On => Some(Files::open(&settings.data_dir.join("tls"))?),
            Mode::Off => None,
        };
        let tls = Self {
            settings,
            files,
            credentials,
            is_ready: watch::Sender::new(false),
        };
        if let Some(leaf) = tls.stored_certificate()? {
            tls.set(leaf);
        }
        Ok(tls)
    }

    /// Decides for each incoming connection whether it is TLS or plain HTTP.
    ///
    /// # Errors
    /// The TLS configuration cannot be built.
    pub fn sniffer(&self) -> Result<ProtocolSniffer, Error> {
        let setting = "tls = \"off\" in agent.toml, and in [api] of ctl.toml";
        let plain = self.settings.tls_mode().into();
        let certificates = Arc::clone(self.credentials.certificates());
        ProtocolSniffer::new(certificates, self.credentials.trust(), plain, setting)
    }

    /// Completes once the controller can connect, so that the first report does not announce an agent that it cannot reach.
    pub async fn ready(&self) {
        let mut is_ready = self.is_ready.subscribe();
        if is_ready
            .wait_for(|is| *is || !self.is_required())
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Requests a certificate and renews it before it expires, until the future is dropped.
    pub async fn keep_current(&self) {
        let Some(files) = &self.files else {
            return std::future::pending().await;
        };
        let mut last_failure = None;
        // Without the authority's certificate the stored one cannot be verified: it is replaced at the start.
        let mut is_verified = self.settings.trust.is_some();
        loop {
            if self.is_required() && !(is_verified && self.is_current()) {
                let outcome = self.request(files).await;
                is_verified = outcome.is_ok();
                let failure = outcome.err();
                if let Some(failure) = &failure
                    && last_failure.as_ref() != Some(failure)
                {
                    tracing::warn!(
                        controller = %self.settings.controller,
                        "waiting for a certificate, without which the controller does not connect: {failure}"
                    );
                }
                last_failure = failure;
            }
            // The node's address may only be known by now, and may be loopback, which needs no certificate.
            let certificate = self.credentials.certificates().current();
            let is_ready = certificate.is_some() || !self.is_required();
            self.is_ready.send_replace(is_ready);
            sleep(if is_ready {
                CHECK_INTERVAL
            } else {
                RETRY_INTERVAL
            })
            .await;
        }
    }

    /// Only where other machines connect.
    fn is_required(&self) -> bool {
        self.files.is_some() && self.ip().is_none_or(|ip| !ip.to_canonical().is_loopback())
    }

    /// The node's address, as reports have it.
    fn ip(&self) -> Option<IpAddr> {
        let detected = || local_address(&self.settings.controller).ok();
        self.settings.ip.or_else(detected)
    }

    /// A certificate without an identity is of an earlier version: it is replaced as soon as the controller issues others.
    fn is_current(&self) -> bool {
        let presented = self.credentials.certificates().current();
        presented.is_some_and(|leaf| {
            leaf.identity().is_some() && !leaf.validity().is_due(SystemTime::now())
        })
    }

    /// The certificate on disk, if clients that trust the cluster's authority would accept it.
    fn stored_certificate(&self) -> Result<Option<Leaf>, Error> {
        let Some(leaf) = self.files.as_ref().map(Files::leaf).transpose()?.flatten() else {
            return Ok(None);
        };
        let now = SystemTime::now();
        let is_valid = match (&self.settings.trust, self.ip()) {
            (Some(trust), Some(ip)) => trust.verify(&leaf, &ip.to_string(), now).is_ok(),
            _ => leaf.validity().ends > now,
        };
        Ok(is_valid.then_some(leaf))
    }

    fn set(&self, leaf: Leaf) {
        self.credentials.certificates().set(leaf);
        self.is_ready.send_replace(true);
    }

    async fn request(&self, files: &Files) -> Result<(), String> {
        let ip = self.ip().ok_or("this node's address is not known yet")?;
        let request = CertificateRequest {
            node: self.settings.name.clone(),
            ip,
            request: files.request().map_err(|error| error.to_string())?,
        };
        let response = self.send(ip, &request).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| root_cause(&error))?;
        if !status.is_success() {
            let reason = answers::reason(&body);
            let reason = reason.unwrap_or_else(|| "is it a controller of this version?".to_owned());
            return Err(format!(
                "the controller refused the request with status {}: {reason}",
                status.as_u16()
            ));
        }
        let Certificate { certificate } =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let leaf = files
            .store(&certificate)
            .map_err(|error| error.to_string())?;
        tracing::info!(%ip, "received a certificate");
        self.set(leaf);
        Ok(())
    }

    /// Sends the request with the present certificate. If that is refused, such as after the node was renamed, or there is
    /// none, the node enrols with the token.
    async fn send(
        &self,
        ip: IpAddr,
        request: &CertificateRequest,
    ) -> Result<reqwest::Response, String> {
        let url = format!("{}/v1/certificates", self.settings.controller);
        if self.credentials.presents_identity() {
            let client = self.client_from(ip, self.credentials.client())?;
            match client.post(&url).json(request).send().await {
                Ok(answer) if !refuses_identity(answer.status()) => return Ok(answer),
                Ok(answer) => {
                    tracing::info!(status = %answer.status(), "enrolling with the token again");
                }
                Err(error) => {
                    let error = root_cause(&error);
                    tracing::info!(error, "enrolling with the token again");
                }
            }
        }
        let client = self.client_from(ip, self.credentials.anonymous_client())?;
        let enrol = || client.post(&url).json(request);
        let answer = self.credentials.token().send(enrol).await;
        answer.map_err(|error| root_cause(&error))
    }

    /// The controller issues a certificate only for the address that the request comes from. A machine with several
    /// addresses binds to the reported one.
    fn client_from(
        &self,
        ip: IpAddr,
        client: Result<reqwest::ClientBuilder, Error>,
    ) -> Result<reqwest::Client, String> {
        let mut client = client
            .map_err(|error| error.to_string())?
            .timeout(REQUEST_TIMEOUT);
        let is_own = UdpSocket::bind((ip, 0)).is_ok();
        if is_own && !is_loopback(&self.settings.controller) {
            client = client.local_address(ip);
        }
        client.build().map_err(|error| root_cause(&error))
    }
}

fn refuses_identity(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
