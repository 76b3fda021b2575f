//! Requests to the controller: one long poll of its route table, and reports to it.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::time::{error::Elapsed, timeout};
use tucano_api::{
    agent::Certificate,
    balancer::{BALANCER_HEADER, BalancerCertificateRequest, BalancerReport},
    ids::InvalidId,
    routes::RouteTable,
};

use super::controller::{Address, Controller, Stream};

/// Largest answer to a request for a certificate, in bytes.
const CERTIFICATE_MAX: usize = 64 << 10;
/// The controller answers within 20 s; a longer silence means that it is gone.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a connection with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// It cannot be reached, or is not the controller of this cluster.
    #[error("cannot connect to the controller at {0}")]
    Connect(Address, #[source] io::Error),
    /// This balancer has no certificate yet.
    #[error("this balancer has no valid certificate yet")]
    NoCertificate,
    /// The name in the certificate is none of a balancer.
    #[error(transparent)]
    Id(InvalidId),
    /// The connection failed.
    #[error("the connection to the controller failed")]
    Broken(#[from] hyper::Error),
    /// No answer in time.
    #[error("the controller did not answer in time")]
    TimedOut(#[from] Elapsed),
    /// Unexpected status.
    #[error("the controller answered {0} instead of a route table")]
    Status(StatusCode),
    /// A request was not accepted; controllers of earlier versions accept no reports.
    #[error("the controller answered {0}")]
    Refused(StatusCode),
    /// The request cannot be built.
    #[error("cannot build the request to the controller")]
    Request(#[from] hyper::http::Error),
    /// The table exceeds the limit, or was truncated.
    #[error(
        "the controller's answer is larger than {limit} bytes (--table-bytes), or was truncated"
    )]
    Body {
        /// The limit in bytes.
        limit: usize,
        /// The error of the read.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not a route table.
    #[error("the controller's answer is not what was asked for")]
    Parse(#[from] serde_json::Error),
}

/// Asks the controller for a table other than `version`; `None` if there was no change.
pub async fn poll(
    controller: &Controller,
    version: Option<&str>,
    limit: usize,
) -> Result<Option<RouteTable>, PollError> {
    let request = Request::get(target(version))
        .header(HOST, controller.host())
        .header(BALANCER_HEADER, controller.balancer_id()?.as_str())
        .body(Full::default())?;
    exchange(controller, request, |response| read(response, limit)).await
}

/// Asks the controller for this balancer's next certificate.
pub async fn certificate(
    controller: &Controller,
    request: &BalancerCertificateRequest,
) -> Result<Certificate, PollError> {
    let request = Request::post("/v1/balancer_certificates")
        .header(HOST, controller.host())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(serde_json::to_vec(request)?))?;
    let accepted = |response: Response<Incoming>| async move {
        match response.status() {
            StatusCode::OK => parse(response, CERTIFICATE_MAX).await,
            status => Err(PollError::Refused(status)),
        }
    };
    exchange(controller, request, accepted).await
}

/// Reports to the controller.
pub async fn report(controller: &Controller, report: &BalancerReport) -> Result<(), PollError> {
    let request = Request::post("/v1/balancer_reports")
        .header(HOST, controller.host())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(serde_json::to_vec(report)?))?;
    let accepted = |response: Response<Incoming>| async move {
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(PollError::Refused(status)),
        }
    };
    exchange(controller, request, accepted).await
}

/// Sends one request over a connection of its own.
async fn exchange<T, F>(
    controller: &Controller,
    request: Request<Full<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> F,
) -> Result<T, PollError>
where
    F: Future<Output = Result<T, PollError>>,
{
    let stream = timeout(CONNECT_TIMEOUT, controller.connect()).await??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        read(response).await
    };
    // The connection ends with the exchange.
    tokio::select! {
        done = timeout(POLL_TIMEOUT, exchange) => done?,
        broken = drive(connection) => Err(broken),
    }
}

/// Drives the connection; returns only its error.
async fn drive(connection: http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>) -> PollError {
    match connection.await {
        Err(error) => error.into(),
        // The exchange is complete.
        Ok(()) => std::future::pending().await,
    }
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<Option<RouteTable>, PollError> {
    match response.status() {
        StatusCode::NO_CONTENT => return Ok(None),
        StatusCode::OK => {}
        other => return Err(PollError::Status(other)),
    }
    parse(response, limit).await.map(Some)
}

async fn parse<T: DeserializeOwned>(
    response: Response<Incoming>,
    limit: usize,
) -> Result<T, PollError> {
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|source| PollError::Body { limit, source })?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

fn target(version: Option<&str>) -> String {
    let mut target = "/v1/routes".to_owned();
    if let Some(version) = version {
        target.push_str("?after=");
        version.bytes().for_each(|byte| encode(byte, &mut target));
    }
    target
}

/// Percent-encoding (RFC 3986, section 2.1).
fn encode(byte: u8, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        text.push(char::from(byte));
    } else {
        text.push('%');
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_percent_encoded() {
        assert_eq!(target(None), "/v1/routes");
        assert_eq!(target(Some("a-1.2_3~")), "/v1/routes?after=a-1.2_3~");
        assert_eq!(
            target(Some("a b&c=é/")),
            "/v1/routes?after=a%20b%26c%3D%C3%A9%2F"
        );
    }
}
