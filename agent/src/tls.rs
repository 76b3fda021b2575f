//! The agent's side of TLS: its certificate, which it asks the controller for with a key of its own, and renews in time.
//!
//! In `<data_dir>/tls/`: `key.pem`, which never leaves it, and `certificate.pem`.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::serve::Listener;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tucano_api::{
    agent::{Certificate, CertificateRequest},
    error::ErrorBody,
};
use tucano_tls::{
    Certificates, Error, Incoming, Leaf, Mode, ProtocolSniffer, Stream, Trust, incoming::Bounds,
    leaf::Files,
};

use crate::{
    errors::innermost,
    monitor::local_address,
    settings::{Limits, Settings, is_loopback},
};

/// Pause after a failed try while there is no certificate, and between looks at the one there is.
const RETRY: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// What the agent has of TLS.
#[derive(Debug)]
pub struct Tls {
    settings: Arc<Settings>,
    /// Nothing where the wire is plain.
    files: Option<Files>,
    certificates: Arc<Certificates>,
    is_ready: watch::Sender<bool>,
}

impl Tls {
    /// Takes up the certificate of an earlier agent, if it still will do.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn open(settings: Arc<Settings>) -> Result<Self, Error> {
        let files = match settings.wire() {
            Mode::On => Some(Files::open(&settings.data_dir.join("tls"))?),
            Mode::Off => None,
        };
        let tls = Self {
            settings,
            files,
            certificates: Arc::default(),
            is_ready: watch::Sender::new(false),
        };
        if let Some(leaf) = tls.kept()? {
            tls.set(leaf);
        }
        Ok(tls)
    }

    /// What connections to the agent go through.
    ///
    /// # Errors
    /// None that is known of.
    pub fn sniffer(&self) -> Result<ProtocolSniffer, Error> {
        let setting = "tls = \"off\" in agent.toml, and in [api] of ctl.toml";
        let plain = self.settings.wire().into();
        ProtocolSniffer::new(Arc::clone(&self.certificates), plain, setting)
    }

    /// Returns once the controller can connect: before, it would only find that out.
    pub async fn ready(&self) {
        let mut is_ready = self.is_ready.subscribe();
        if is_ready
            .wait_for(|is| *is || !self.is_needed())
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Has a certificate, and another one whenever it is time, until the future is dropped.
    pub async fn keep(&self) {
        let Some(files) = &self.files else {
            return std::future::pending().await;
        };
        let mut last_failure = None;
        // Who cannot tell whether what it has will do asks for another one at its start.
        let mut will_do = self.settings.trust.is_some();
        loop {
            if self.is_needed() && !(will_do && self.is_good()) {
                let outcome = self.ask(files).await;
                will_do = outcome.is_ok();
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
            let is_ready = self.certificates.current().is_some() || !self.is_needed();
            // Also where this node's address is only known by now, and needs none.
            self.is_ready.send_replace(is_ready);
            sleep(if is_ready { POLL_INTERVAL } else { RETRY }).await;
        }
    }

    /// Only where other machines connect.
    fn is_needed(&self) -> bool {
        self.files.is_some() && self.ip().is_none_or(|ip| !ip.to_canonical().is_loopback())
    }

    /// The node's address, as reports have it.
    fn ip(&self) -> Option<IpAddr> {
        let towards = || local_address(&self.settings.controller).ok();
        self.settings.ip.or_else(towards)
    }

    fn is_good(&self) -> bool {
        let presented = self.certificates.current();
        presented.is_some_and(|leaf| !leaf.validity().is_due(SystemTime::now()))
    }

    /// What is on disk, where whoever connects would be content with it.
    fn kept(&self) -> Result<Option<Leaf>, Error> {
        let Some(leaf) = self.files.as_ref().map(Files::leaf).transpose()?.flatten() else {
            return Ok(None);
        };
        let now = SystemTime::now();
        let will_do = match (&self.settings.trust, self.ip()) {
            (Some(trust), Some(ip)) => trust.verify(&leaf, &ip.to_string(), now).is_ok(),
            _ => leaf.validity().ends > now,
        };
        Ok(will_do.then_some(leaf))
    }

    fn set(&self, leaf: Leaf) {
        self.certificates.set(leaf);
        self.is_ready.send_replace(true);
    }

    async fn ask(&self, files: &Files) -> Result<(), String> {
        let ip = self.ip().ok_or("this node's address is not known yet")?;
        let request = CertificateRequest {
            node: self.settings.name.clone(),
            ip,
            request: files.request().map_err(|error| error.to_string())?,
        };
        let client = self.client_from(ip).map_err(|error| innermost(&error))?;
        let url = format!("{}/v1/certificates", self.settings.controller);
        let mut request = client.post(url).json(&request);
        if let Some(token) = &self.settings.token {
            request = request.bearer_auth(token.reveal());
        }
        let answer = request.send().await.map_err(|error| innermost(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| innermost(&error))?;
        if !status.is_success() {
            let said = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error);
            let said = said.unwrap_or_else(|_| "is it a controller of this version?".to_owned());
            return Err(format!("it refuses ({}): {said}", status.as_u16()));
        }
        let Certificate { certificate } =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let leaf = files
            .store(&certificate)
            .map_err(|error| error.to_string())?;
        tracing::info!(%ip, "this node has a new certificate");
        self.set(leaf);
        Ok(())
    }

    /// The controller gives a certificate to who asks from its address: of several that this machine has, that one is used.
    fn client_from(&self, ip: IpAddr) -> reqwest::Result<reqwest::Client> {
        let mut client = client(self.settings.trust.as_ref())?.timeout(ANSWER);
        let is_own = UdpSocket::bind((ip, 0)).is_ok();
        if is_own && !is_loopback(&self.settings.controller) {
            client = client.local_address(ip);
        }
        client.build()
    }
}

/// Requests to the controller: it is who the cluster's authority says, and nobody else.
///
/// # Errors
/// None that is known of.
pub fn client(trust: Option<&Trust>) -> reqwest::Result<reqwest::ClientBuilder> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    Ok(match trust {
        Some(trust) => client.tls_certs_only(reqwest::Certificate::from_pem_bundle(
            trust.pem().as_bytes(),
        )?),
        None => client,
    })
}

/// Where the controller connects to.
#[derive(Debug)]
pub struct SniffingListener {
    incoming: Incoming,
    local: SocketAddr,
}

impl SniffingListener {
    /// Begins to accept.
    ///
    /// # Errors
    /// None that is known of.
    pub fn open(
        listener: TcpListener,
        sniffer: ProtocolSniffer,
        limits: &Limits,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let bounds = Bounds {
            pending: limits.handshakes,
            handshake_timeout: limits.handshake_timeout.0,
        };
        let incoming = Incoming::new(listener, sniffer, bounds);
        Ok(Self { incoming, local })
    }
}

impl Listener for SniffingListener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        self.incoming.next().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}
