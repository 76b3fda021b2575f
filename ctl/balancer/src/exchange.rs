//! Forwards one request until a process answers: choice, connection, response head, retries.

use std::sync::Arc;

use hyper::{Method, Request, Response, Version, body::Incoming, http::request};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use crate::{
    client::Client,
    errors::chain,
    interim::InterimResponses,
    plane::DataPlane,
    refusal::Refusal,
    request_body::{BodyFailure, RequestBody, SharedBody},
    table::Service,
    target::Target,
    upstream::{
        Backend, Connection,
        connect::{self, READ_BUFFER_MAX},
        health::uptime,
        pool::{Link, Reuse},
    },
    waiting::CHECK_INTERVAL,
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
    client: &'a Client,
    service: Arc<Service>,
    target: Target,
    head: request::Parts,
    body: SharedBody,
    interim: Arc<InterimResponses>,
    /// Processes that have failed this request.
    tried: Vec<Arc<Backend>>,
    sent: usize,
    connect_deadline: Instant,
    wait_deadline: Instant,
    /// Its place in a batch of requests that have waited.
    released: Option<OwnedSemaphorePermit>,
}

/// Why an attempt produced no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// No byte of the request was sent.
    Unsent,
    /// The connection broke.
    ConnectionBroken,
    /// The response is not valid HTTP.
    Invalid,
    /// The response head exceeds a limit.
    TooLarge,
    /// More interim responses than permitted.
    TooManyInterim,
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
        client: &'a Client,
        service: Arc<Service>,
        target: Target,
        head: request::Parts,
        body: SharedBody,
        interim: Arc<InterimResponses>,
    ) -> Self {
        Self {
            connect_deadline: Instant::now() + plane.limits.connect_total_timeout,
            wait_deadline: Instant::now() + plane.limits.wait_timeout,
            released: None,
            plane,
            client,
            service,
            target,
            head,
            body,
            interim,
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
            let why = self.refusal(failure);
            if !self.may_repeat(failure) {
                return Err(why);
            }
            self.service.stats.retried();
            self.refresh_service();
            refusal = Some(why);
        }
    }

    /// A connection to a process, as soon as one accepts it. `refusal` is the answer if none does in time.
    async fn connect(&mut self, refusal: Option<Refusal>) -> Result<Connection, Refusal> {
        let mut waiter = None;
        loop {
            let refusal = match self.connect_now(refusal.clone()).await {
                Err(refusal) if refusal.is_temporary() => refusal,
                connected => return connected,
            };
            self.released = None;
            if waiter.is_none() {
                let entered = self.plane.waiting.enter(self.memory(), &self.plane.limits);
                waiter = Some(entered.map_err(|limit| match refusal {
                    Refusal::NoEndpoint(ref service) if self.plane.limits.max_waiting > 0 => {
                        Refusal::NoRoomToWait(service.clone(), limit)
                    }
                    ref refusal => refusal.clone(),
                })?);
            }
            self.wait(refusal).await?;
            self.tried.clear();
        }
    }

    /// Waits until a process may accept the request. `refusal` is the answer if none does in time.
    async fn wait(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let deadline = match refusal {
            Refusal::Unreachable(_) => self.wait_deadline.min(self.connect_deadline),
            _ => self.wait_deadline,
        };
        let mut changes = self.plane.changes();
        loop {
            let pause = (Instant::now() + CHECK_INTERVAL).min(deadline);
            tokio::select! {
                changed = changes.changed() => changed.unwrap_or_default(),
                () = sleep_until(pause) => {}
            }
            if self.client.is_gone() {
                return Err(Refusal::ClientGone);
            }
            if Instant::now() >= deadline {
                return Err(refusal);
            }
            self.refresh_service();
            if !self.service.has_endpoint() {
                continue;
            }
            let batch = self.plane.limits.waiting_batch;
            tokio::select! {
                released = self.service.release.next(batch) => self.released = released,
                () = sleep_until(pause + CHECK_INTERVAL) => continue,
            }
            return match self.client.is_gone() {
                true => Err(Refusal::ClientGone),
                false => Ok(()),
            };
        }
    }

    /// Roughly what the request holds in memory while it waits: its head, and the part of its body that has been
    /// read ahead.
    fn memory(&self) -> usize {
        let headers = self.head.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let body = match self.body.is_ended() {
            true => 0,
            false => READ_BUFFER_MAX,
        };
        headers + self.target.path().len() + body
    }

    /// A connection to the next process in rotation that accepts one. `refusal` is the answer if none does.
    async fn connect_now(&mut self, refusal: Option<Refusal>) -> Result<Connection, Refusal> {
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
            let Some(in_flight) = backend.begin() else {
                // The route table has just changed: the process drains.
                self.refresh_service();
                self.tried.push(backend);
                continue;
            };
            if let Some(link) = backend.pooled(self.reuse(), &self.plane.limits).await {
                return Ok(Connection::new(link, in_flight));
            }
            if let Some(link) = self.connect_to(&backend).await? {
                return Ok(Connection::new(link, in_flight));
            }
            self.tried.push(backend);
            refusal = Refusal::Unreachable(self.service.name.clone());
            if Instant::now() >= self.connect_deadline {
                return Err(refusal);
            }
            self.refresh_service();
        }
    }

    fn reuse(&self) -> Reuse {
        match is_idempotent(&self.head.method) && self.body.is_ended() {
            true => Reuse::Any,
            false => Reuse::Settled,
        }
    }

    /// `None` if the process cannot be reached.
    async fn connect_to(&self, backend: &Arc<Backend>) -> Result<Option<Link>, Refusal> {
        let connected = tokio::select! {
            connected = backend.connect(&self.plane.limits) => connected,
            () = backend.wait_lost() => return Ok(None),
        };
        let error = match connected {
            Ok(link) => return Ok(Some(link)),
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
        let begun = Instant::now();
        let mut timer = std::pin::pin!(sleep_until(Instant::now() + limit));
        let mut no_continue = std::pin::pin!(sleep(self.plane.limits.continue_timeout));
        loop {
            tokio::select! {
                biased;
                () = self.interim.wait_exceeded() => return Err(Failure::TooManyInterim),
                answer = &mut answer => return answer.map_err(|failure| {
                    debug!(process = %backend.process, error = %failure.error, "no response");
                    self.classify(&failure.error, failure.unsent)
                }),
                () = backend.wait_lost() => return Err(Failure::Lost),
                () = sleep_until(begun + CHECK_INTERVAL), if self.released.is_some() => self.released = None,
                () = &mut no_continue, if self.interim.awaits_continue() => {
                    self.interim.send_continue();
                }
                () = &mut timer => {
                    // The timeout runs only while the process has all it needs to make progress.
                    let last_progress = match self.body.waits_for_client() {
                        true => Instant::now(),
                        false => self.body.last_progress(),
                    };
                    if last_progress + limit <= Instant::now() {
                        return Err(Failure::TimedOut);
                    }
                    timer.as_mut().reset(last_progress + limit);
                }
            }
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(self.body.next_attempt(&self.interim));
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.head.headers.clone();
        self.interim.follow(&mut request);
        request
    }

    fn classify(&self, error: &hyper::Error, unsent: bool) -> Failure {
        match self.body.failure() {
            Some(failure) => Failure::Body(failure),
            None if unsent => Failure::Unsent,
            None if error.is_parse_too_large() => Failure::TooLarge,
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
            Failure::Invalid
            | Failure::TooLarge
            | Failure::TooManyInterim
            | Failure::TimedOut
            | Failure::Body(_) => false,
        };
        harmless && self.body.is_replayable() && self.sent < self.plane.limits.tries
    }

    fn refusal(&self, failure: Failure) -> Refusal {
        let (name, limits) = (self.service.name.clone(), &self.plane.limits);
        match failure {
            Failure::Unsent | Failure::ConnectionBroken => Refusal::ConnectionBroken(name),
            Failure::Invalid => Refusal::InvalidResponse(name),
            Failure::TooLarge => {
                Refusal::ResponseTooLarge(name, limits.head_bytes, limits.max_headers)
            }
            Failure::TooManyInterim => Refusal::TooManyInterim(name, limits.max_interim_responses),
            Failure::Lost => Refusal::Lost(name),
            Failure::TimedOut => Refusal::TimedOut(name),
            Failure::Body(failure) => Refusal::Body(failure),
        }
    }

    /// Looks the service up again: the routes may have changed.
    fn refresh_service(&mut self) {
        let table = self.plane.table();
        if let Some(service) = table.find(&self.target.host, self.target.path()) {
            self.service = service.clone();
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
