//! Sending one request until a process answers: choice, connection, waiting for the head, trying again.

use std::sync::Arc;

use hyper::{Method, Request, Response, Version, body::Incoming, http::request};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::{
    errors::chain,
    plane::Plane,
    refusal::Refusal,
    request_body::{BodyFailure, RequestBody, SharedBody},
    table::Service,
    target::Target,
    upstream::{Backend, Connection, connect, health::uptime},
};

/// A process's response, whose body is still to come over the connection.
#[derive(Debug)]
pub struct Answer {
    /// The head, and the body to read.
    pub response: Response<Incoming>,
    /// The connection.
    pub connection: Connection,
}

/// One request on its way to a process.
#[derive(Debug)]
pub struct Forwarder<'a> {
    plane: &'a Plane,
    service: Arc<Service>,
    target: Target,
    head: request::Parts,
    body: SharedBody,
    /// Processes that failed this request.
    tried: Vec<Arc<Backend>>,
    sent: usize,
    connect_deadline: Instant,
}

/// Why an attempt gave no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The process has seen none of the request.
    Unsent,
    /// The connection broke.
    BrokenOff,
    /// The response is no HTTP, or its head over the limits.
    Invalid,
    /// The process vanished from the routes.
    Lost,
    /// It took too long.
    TimedOut,
    /// The client's body did not come to its end.
    Body(BodyFailure),
}

impl<'a> Forwarder<'a> {
    /// A request for `service`, with the head that the process is to see.
    pub fn new(
        plane: &'a Plane,
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

    /// Sends the request to one process after the other until one answers, as far as it may be repeated.
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
            self.note(failure, &connection);
            let why = failure.refusal(&self.service);
            if !self.may_repeat(failure) {
                return Err(why);
            }
            self.service.stats.retried();
            self.look_again();
            refusal = Some(why);
        }
    }

    /// A connection to the process whose turn it is, or to the next that accepts one. `refusal` is what to
    /// answer if none is left.
    async fn connect(&mut self, refusal: Option<Refusal>) -> Result<Connection, Refusal> {
        let mut refusal = refusal.unwrap_or_else(|| Refusal::Down(self.service.name.clone()));
        loop {
            let Some(backend) = self.service.choose(uptime(), &self.tried) else {
                return Err(refusal);
            };
            if backend.is_lost() {
                // The routes have just changed: the new ones no longer have it.
                self.look_again();
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
            self.look_again();
        }
    }

    /// None if the process cannot be reached.
    async fn connect_to(&self, backend: &Arc<Backend>) -> Result<Option<Connection>, Refusal> {
        let connected = tokio::select! {
            connected = backend.connect(&self.plane.limits) => connected,
            () = backend.until_lost() => return Ok(None),
        };
        let error = match connected {
            Ok(connection) => return Ok(Some(connection)),
            Err(error @ connect::Error::Exhausted(..)) => {
                warn!(cause = %chain(&error), "at the limit of this machine");
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

    /// Sends the request over one connection and waits for the response's head.
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
                () = backend.until_lost() => return Err(Failure::Lost),
                () = &mut timer => {
                    // The clock runs while the process is to act, not while the client is.
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
            None => Failure::BrokenOff,
        }
    }

    /// Draws conclusions for the next choice.
    fn note(&mut self, failure: Failure, connection: &Connection) {
        let backend = connection.backend();
        if failure == Failure::Unsent {
            self.sent -= 1;
        }
        if connection.is_reused() && matches!(failure, Failure::Unsent | Failure::BrokenOff) {
            // The process may just have closed what was unused: it deserves a fresh connection.
            backend.pool.clear();
        } else {
            self.tried.push(backend.clone());
        }
    }

    /// A request may be repeated if no process can have acted on it, or if acting twice is the same as once
    /// (RFC 9110, section 9.2.2), and as long as its body can still be sent from the beginning.
    fn may_repeat(&self, failure: Failure) -> bool {
        let harmless = match failure {
            Failure::Unsent => true,
            Failure::BrokenOff | Failure::Lost => is_idempotent(&self.head.method),
            Failure::Invalid | Failure::TimedOut | Failure::Body(_) => false,
        };
        harmless && self.body.is_whole() && self.sent < self.plane.limits.tries
    }

    /// The routes may have changed meanwhile.
    fn look_again(&mut self) {
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
            Self::Unsent | Self::BrokenOff => Refusal::BrokenOff(name),
            Self::Invalid => Refusal::Invalid(name),
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
