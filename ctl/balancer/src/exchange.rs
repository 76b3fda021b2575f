//! Forwards one request until a process answers: choice, connection, response head, retries.

use std::sync::Arc;

use hyper::{Method, Request, Response, Version, body::Incoming, http::request};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::{
    errors::chain,
    plane::DataPlane,
    refusal::Refusal,
    request_body::{BodyFailure, RequestBody, SharedBody},
    table::Service,
    target::Target,
    upstream::{Backend, Connection, connect, health::uptime},
};

/// A process's response. Its body is still to be read from the connection.
#[derive(Debug)]
pub struct Answer {
    /// The head, and the body to be read.
    pub response: Response<Incoming>,
    /// The connection that carries it.
    pub connection: Connection,
}

/// One request that is being forwarded.
#[derive(Debug)]
pub struct Forwarder<'a> {
    plane: &'a DataPlane,
    service: Arc<Service>,
    target: Target,
    head: request::Parts,
    body: SharedBody,
    /// Processes that have failed this request.
    tried: Vec<Arc<Backend>>,
    sent: usize,
    connect_deadline: Instant,
}

/// Why an attempt produced no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// No byte of the request was sent.
    Unsent,
    /// The connection broke.
    ConnectionBroken,
    /// The response is not valid HTTP, or its head exceeds a limit.
    Invalid,
    /// The process was removed from the route table.
    Lost,
    /// No response head in time.
    TimedOut,
    /// The request's body was not received completely.
    Body(BodyFailure),
}

impl<'a> Forwarder<'a> {
    /// A request for `service`, with the head that the process receives.
    pub fn new(
        plane: &'a DataPlane,
        service: Arc<Service>,
        target: Target,
        head: request::Parts,
        body: SharedBody,
    ) -> Self {
        Self {
            connect_deadline: Instant::now() + plane.limits.connect_total_timeout,
            plane,
            service,
            target,
            head,
            body,
            tried: Vec::new(),
            sent: 0,
        }
    }

    /// Sends the request to one process after another until one answers, as long as a retry is permitted.
    pub async fn run(mut self) -> Result<Answer, Refusal> {
        let mut refusal = None;
        loop {
            let mut connection = self.connect(refusal).await?;
            let failure = match self.attempt(&mut connection).await {
                Ok(response) => {
                    return Ok(Answer {
                        response,
                        connection,
                    });
                }
                Err(failure) => failure,
            };
            self.record_failure(failure, &connection);
            let why = failure.refusal(&self.service);
            if !self.may_repeat(failure) {
                return Err(why);
            }
            self.service.stats.retried();
            self.refresh_service();
            refusal = Some(why);
        }
    }

    /// A connection to the next process in rotation that accepts one. `refusal` is the answer if none does.
    async fn connect(&mut self, refusal: Option<Refusal>) -> Result<Connection, Refusal> {
        let mut refusal = refusal.unwrap_or_else(|| Refusal::NoEndpoint(self.service.name.clone()));
        loop {
            let Some(backend) = self.service.choose(uptime(), &self.tried) else {
                return Err(refusal);
            };
            if backend.is_lost() {
                // The route table has just changed and no longer contains it.
                self.refresh_service();
                self.tried.push(backend);
                continue;
            }
            if let Some(connection) = backend.pooled(&self.plane.limits).await {
                return Ok(connection);
            }
            if let Some(connection) = self.connect_to(&backend).await? {
                return Ok(connection);
            }
            self.tried.push(backend);
            refusal = Refusal::Unreachable(self.service.name.clone());
            if Instant::now() >= self.connect_deadline {
                return Err(refusal);
            }
            self.refresh_service();
        }
    }

    /// `None` if the process cannot be reached.
    async fn connect_to(&self, backend: &Arc<Backend>) -> Result<Option<Connection>, Refusal> {
        let connected = tokio::select! {
            connected = backend.connect(&self.plane.limits) => connected,
            () = backend.wait_lost() => return Ok(None),
        };
        let error = match connected {
            Ok(connection) => return Ok(Some(connection)),
            Err(error @ connect::Error::Exhausted(..)) => {
                warn!(cause = %chain(&error), "out of descriptors, ports or memory");
                return Err(Refusal::Exhausted);
            }
            Err(error) => error,
        };
        if backend.health.eject(uptime(), &self.plane.limits) {
            self.service.stats.ejected();
        }
        debug!(process = %backend.process, node = %backend.node, cause = %chain(&error), "trying another");
        Ok(None)
    }

    /// Sends the request over one connection and waits for the response head.
    async fn attempt(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Response<Incoming>, Failure> {
        self.sent += 1;
        let backend = connection.backend().clone();
        let mut answer = std::pin::pin!(connection.send(self.request()));
        let limit = self.plane.limits.response_timeout;
        let mut timer = std::pin::pin!(sleep_until(Instant::now() + limit));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|failure| {
                    debug!(process = %backend.process, error = %failure.error, "no response");
                    self.classify(&failure.error, failure.unsent)
                }),
                () = backend.wait_lost() => return Err(Failure::Lost),
                () = &mut timer => {
                    // The timeout runs only while the process has all it needs to make progress.
                    let begun = match self.body.waits_for_client() {
                        true => Instant::now(),
                        false => self.body.last_progress(),
                    };
                    if begun + limit <= Instant::now() {
                        return Err(Failure::TimedOut);
                    }
                    timer.as_mut().reset(begun + limit);
                }
            }
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(self.body.next_attempt());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.head.headers.clone();
        request
    }

    fn classify(&self, error: &hyper::Error, unsent: bool) -> Failure {
        match self.body.failure() {
            Some(failure) => Failure::Body(failure),
            None if unsent => Failure::Unsent,
            None if error.is_parse() => Failure::Invalid,
            None => Failure::ConnectionBroken,
        }
    }

    /// Records a failed attempt for the next choice.
    fn record_failure(&mut self, failure: Failure, connection: &Connection) {
        let backend = connection.backend();
        if failure == Failure::Unsent {
            self.sent -= 1;
        }
        if connection.is_reused() && matches!(failure, Failure::Unsent | Failure::ConnectionBroken)
        {
            // The process may just have closed an idle connection: try it again with a fresh one.
            backend.pool.clear();
        } else {
            self.tried.push(backend.clone());
        }
    }

    /// A retry is permitted if no process can have acted on the request, or if the method is idempotent
    /// (RFC 9110, section 9.2.2), and only while the body can still be sent from its beginning.
    fn may_repeat(&self, failure: Failure) -> bool {
        let harmless = match failure {
            Failure::Unsent => true,
            Failure::ConnectionBroken | Failure::Lost => is_idempotent(&self.head.method),
            Failure::Invalid | Failure::TimedOut | Failure::Body(_) => false,
        };
        harmless && self.body.is_replayable() && self.sent < self.plane.limits.tries
    }

    /// Looks the service up again: the routes may have changed.
    fn refresh_service(&mut self) {
        let table = self.plane.table();
        if let Some(service) = table.find(&self.target.host, self.target.path()) {
            self.service = service.clone();
        }
    }
}

impl Failure {
    fn refusal(self, service: &Service) -> Refusal {
        let name = service.name.clone();
        match self {
            Self::Unsent | Self::ConnectionBroken => Refusal::ConnectionBroken(name),
            Self::Invalid => Refusal::InvalidResponse(name),
            Self::Lost => Refusal::Lost(name),
            Self::TimedOut => Refusal::TimedOut(name),
            Self::Body(failure) => Refusal::Body(failure),
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
