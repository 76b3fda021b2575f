//! The other worker's agent, which has the volume.

use std::time::Duration;

use reqwest::{Response, tls::TlsInfo};
use tokio::time::timeout;
use tucano_api::{
    agent::VolumeInstance,
    volumes::{FillSource, VolumeFill},
};
use tucano_tls::Identity;

use super::copy::Failure;
use crate::{answers, credentials::Credentials, errors::root_cause};

/// Time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest refusal that is read.
const REFUSAL_BYTES: usize = 64 << 10;

/// A connection to the agent that has a volume.
#[derive(Debug)]
pub(super) struct Source {
    client: reqwest::Client,
    url: String,
    node: String,
    stalled: Duration,
}

impl Source {
    /// Presents this node's certificate, and accepts that of the named worker only.
    pub(super) fn of(
        fill: &VolumeFill,
        credentials: &Credentials,
        stalled: Duration,
    ) -> Result<Self, Failure> {
        let FillSource::Volume {
            instance,
            node,
            address,
        } = &fill.from
        else {
            let message = "only another worker's volume is copied";
            return Err(Failure::passing(&message));
        };
        if !credentials.requires_controller_identity() {
            let message = "this node has no certificate, without which volumes are not copied";
            return Err(Failure::passing(&message));
        }
        let client = credentials
            .client()
            .map_err(|error| Failure::passing(&error))?;
        let client = client
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_info(true)
            .https_only(true)
            .build();
        let VolumeInstance { id, .. } = &fill.volume;
        Ok(Self {
            client: client.map_err(|error| Failure::passing(&root_cause(&error)))?,
            url: format!("https://{address}/v1/volumes/{id}/{instance}"),
            node: node.to_string(),
            stalled,
        })
    }

    /// Asks for a part of the volume.
    pub(super) async fn get(&self, part: &str) -> Result<Response, Failure> {
        let sent = self.client.get(format!("{}/{part}", self.url)).send();
        let answer = timeout(self.stalled, sent).await;
        let answer = answer.map_err(|_| self.failed("it does not answer"))?;
        let mut answer = answer.map_err(|error| self.failed(&root_cause(&error)))?;
        let certificate = answer.extensions().get::<TlsInfo>();
        let certificate = certificate.and_then(TlsInfo::peer_certificate);
        let identity = certificate.and_then(Identity::of_der);
        if identity != Some(Identity::Node(self.node.clone())) {
            let who = identity.map_or("nobody".to_owned(), |it| it.to_string());
            return Err(self.failed(&format!("another program answers at its address: {who}")));
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        let mut body = Vec::new();
        answers::read_body(&mut answer, REFUSAL_BYTES, &mut body)
            .await
            .ok();
        let reason = answers::reason(&body).unwrap_or_else(|| answer.status().to_string());
        let reason: String = reason.chars().take(1000).collect();
        Err(self.failed(&reason))
    }

    /// The next bytes of an answer; none at its end.
    pub(super) async fn chunk(
        &self,
        answer: &mut Response,
    ) -> Result<Option<bytes::Bytes>, Failure> {
        let chunk = timeout(self.stalled, answer.chunk()).await;
        let chunk = chunk.map_err(|_| self.failed("its answer does not go on"))?;
        chunk.map_err(|error| self.failed(&root_cause(&error)))
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::passing(&format!("{}: {why}", self.node))
    }
}
