//! Interim responses (1xx): forwarded from a process to an HTTP/1.1 client, within a limit.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use hyper::{HeaderMap, Request, StatusCode, Version, ext::on_informational};
use tokio_util::sync::CancellationToken;

use crate::{client::state::ConnectionState, headers::strip_interim, request_body::RequestBody};

/// The interim responses to one request.
#[derive(Debug)]
pub struct InterimResponses {
    client: Arc<ConnectionState>,
    /// HTTP/1.0 knows no interim responses.
    is_http_11: bool,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
    continued: AtomicBool,
    count: AtomicUsize,
    count_max: usize,
    exceeded: CancellationToken,
}

impl InterimResponses {
    /// To one request of `client`; a process may send `count_max` of them.
    pub fn new(
        client: Arc<ConnectionState>,
        version: Version,
        expects_continue: bool,
        count_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            is_http_11: version == Version::HTTP_11,
            expects_continue,
            continued: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            count_max,
            exceeded: CancellationToken::new(),
        })
    }

    /// Forwards the interim responses to `request`.
    pub fn follow(self: &Arc<Self>, request: &mut Request<RequestBody>) {
        let this = self.clone();
        on_informational(request, move |response| {
            this.forward(response.status(), response.headers());
        });
    }

    /// Whether the client still waits for `100 Continue`.
    pub fn awaits_continue(&self) -> bool {
        self.expects_continue && !self.continued.load(Relaxed)
    }

    /// Asks the client for its body.
    pub fn send_continue(&self) {
        if self.expects_continue && !self.continued.swap(true, Relaxed) {
            self.client.queue_interim(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Returns when the process has sent more of them than it may.
    pub async fn wait_exceeded(&self) {
        self.exceeded.cancelled().await;
    }

    /// Waits until all have been written: the response must not overtake them.
    pub async fn wait_written(&self) {
        self.client.wait_interim_written().await;
    }

    fn forward(&self, status: StatusCode, headers: &HeaderMap) {
        if self.count.fetch_add(1, Relaxed) >= self.count_max {
            self.exceeded.cancel();
        } else if status == StatusCode::CONTINUE {
            self.send_continue();
        } else if self.is_http_11 {
            self.client.queue_interim(&head(status, headers));
        }
    }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &strip_interim(headers) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
