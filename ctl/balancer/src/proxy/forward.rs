//! Forwards one request until a process answers: choice, connection, attempts, retries.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{attempt::Attempt, request::Request, upload::Sent};
use crate::{
    back::{
        Connection, InFlight, LocalBackend, connect,
        pool::{Link, Reuse},
    },
    core::{
        backend::Backend,
        health::{uptime, uptime_at},
        refusal::Refusal,
        retry::{Failure, Repeatable},
        waiting::CHECK_INTERVAL,
    },
    errors::chain,
    front::client::Client,
    http1::response::ResponseParser,
    limits::Limits,
    worker::{Worker, buffers::BUFFER_LEN, local::LocalService},
};

/// A process's response. Its body is still to be read from the connection.
#[derive(Debug)]
pub struct Answer {
    /// Length of its head, the first in the connection's inbox.
    pub head_len: usize,
    /// How much of the request was sent.
    pub sent: Sent,
    /// The connection that carries it.
    pub connection: Connection,
}

/// One request that is being forwarded.
#[derive(Debug)]
pub struct Forwarder<'a> {
    worker: &'a Worker,
    client: &'a mut Client,
    request: &'a mut Request,
    parser: &'a mut ResponseParser,
    service: Rc<LocalService>,
    /// Processes that have failed this request.
    tried: Vec<Arc<Backend>>,
    sent: usize,
    begun: Instant,
    /// Its place in a batch of requests that have waited.
    released: Option<OwnedSemaphorePermit>,
}

/// The next process in rotation, and how it is reached.
#[derive(Debug)]
enum Next {
    /// Over an idle connection.
    Pooled(Connection),
    /// Over a new connection.
    Fresh(InFlight),
    /// There is none.
    Nobody,
}

/// Why there is no response: to be told to the client, or not, because it is gone.
pub type NoAnswer = Option<Refusal>;

impl<'a> Forwarder<'a> {
    /// A request for `service`.
    pub fn new(
        worker: &'a Worker,
        client: &'a mut Client,
        request: &'a mut Request,
        parser: &'a mut ResponseParser,
        service: Rc<LocalService>,
    ) -> Self {
        Self {
            begun: client.now,
            worker,
            client,
            request,
            parser,
            service,
            tried: Vec::new(),
            sent: 0,
            released: None,
        }
    }

    /// Sends the request to one process after another until one answers, as long as a retry is permitted.
    ///
    /// # Errors
    /// Why none does.
    pub async fn run(&mut self) -> Result<Answer, NoAnswer> {
        let mut refusal = None;
        loop {
            let mut connection = match self.next() {
                Next::Pooled(connection) => connection,
                // Boxed, so that a request costs little memory if it needs none of this.
                next => {
                    let connection = Box::pin(self.connect(next, refusal)).await;
                    self.client.now = Instant::now();
                    connection.map_err(Some)?
                }
            };
            self.sent += 1;
            let mut attempt = Attempt::new(
                self.worker,
                self.client,
                self.request,
                self.parser,
                &mut connection,
                &mut self.released,
            );
            let failure = match attempt.run().await {
                Ok((head_len, sent)) => {
                    return Ok(Answer {
                        head_len,
                        sent,
                        connection,
                    });
                }
                Err(failure) => failure,
            };
            self.client.now = Instant::now();
            refusal = Some(self.failed(failure, &connection)?);
        }
    }

    /// Records a failed attempt. Returns what the client is told if no other one succeeds.
    fn failed(&mut self, failure: Failure, connection: &Connection) -> Result<Refusal, NoAnswer> {
        let backend = connection.in_flight.backend();
        debug!(process = %backend.backend.process, ?failure, "no response");
        self.record_failure(failure, connection);
        let why = self.refusal(failure).ok_or(None)?;
        if !self.repeatable().permits(failure) {
            return Err(Some(why));
        }
        self.service.counters().retries.increase();
        self.refresh_service();
        Ok(why)
    }

    fn next(&mut self) -> Next {
        loop {
            let now = match self.sent {
                0 if self.tried.is_empty() => uptime_at(self.begun.into_std()),
                _ => uptime(),
            };
            let Some(backend) = self.service.choose(now, &self.tried).cloned() else {
                return Next::Nobody;
            };
            let Some(in_flight) = backend.begin() else {
                // The route table has just changed: the process drains, or is no longer there.
                self.refresh_service();
                self.tried.push(backend.backend.clone());
                continue;
            };
            let link = backend.pooled(now, self.reuse(), self.limits());
            return match link {
                Some(link) => Next::Pooled(Connection {
                    link,
                    in_flight,
                    was_pooled: true,
                }),
                None => Next::Fresh(in_flight),
            };
        }
    }

    /// A connection to a process, as soon as one accepts it. `refusal` is the answer if none does in time.
    async fn connect(
        &mut self,
        mut next: Next,
        refusal: Option<Refusal>,
    ) -> Result<Connection, Refusal> {
        let mut waiter = None;
        loop {
            let refusal = match self.connect_now(next, refusal.clone()).await {
                Err(refusal) if refusal.is_temporary() => refusal,
                connected => return connected,
            };
            self.released = None;
            if waiter.is_none() {
                let waiting = &self.worker.plane.waiting;
                let entered = waiting.enter(self.memory(), self.limits());
                waiter = Some(entered.map_err(|limit| match refusal {
                    Refusal::NoEndpoint(ref service) if self.limits().max_waiting > 0 => {
                        Refusal::NoRoomToWait(service.clone(), limit)
                    }
                    ref refusal => refusal.clone(),
                })?);
            }
            self.wait(refusal).await?;
            self.tried.clear();
            next = self.next();
        }
    }

    /// A connection to `next`, or to the first one after it that accepts one. `refusal` is the answer if none does.
    async fn connect_now(
        &mut self,
        mut next: Next,
        refusal: Option<Refusal>,
    ) -> Result<Connection, Refusal> {
        let name = &self.service.service.name;
        let mut refusal = refusal.unwrap_or_else(|| Refusal::NoEndpoint(name.clone()));
        let deadline = self.begun + self.limits().connect_total_timeout;
        loop {
            let mut in_flight = match next {
                Next::Pooled(connection) => return Ok(connection),
                Next::Fresh(in_flight) => in_flight,
                Next::Nobody => return Err(refusal),
            };
            if let Some(link) = self.connect_to(&mut in_flight).await? {
                in_flight.stop_waiting();
                return Ok(Connection {
                    link,
                    in_flight,
                    was_pooled: false,
                });
            }
            self.tried.push(in_flight.backend().backend.clone());
            refusal = Refusal::Unreachable(self.service.service.name.clone());
            if Instant::now() >= deadline {
                return Err(refusal);
            }
            self.refresh_service();
            next = self.next();
        }
    }

    /// `None` if the process cannot be reached.
    async fn connect_to(&self, in_flight: &mut InFlight) -> Result<Option<Box<Link>>, Refusal> {
        let local = in_flight.backend().clone();
        let mut connecting = std::pin::pin!(local.connect(self.limits()));
        let connected = poll_fn(|cx| {
            in_flight.wake_when_lost(cx.waker());
            match local.backend.is_lost() {
                true => Poll::Ready(None),
                false => connecting.as_mut().poll(cx).map(Some),
            }
        });
        let error = match connected.await {
            None => return Ok(None),
            Some(Ok(link)) => return Ok(Some(link)),
            Some(Err(error @ connect::Error::Exhausted(..))) => {
                warn!(cause = %chain(&error), "out of descriptors, ports or memory");
                return Err(Refusal::Exhausted);
            }
            Some(Err(error)) => error,
        };
        let backend = &local.backend;
        if backend.health.eject(uptime(), self.limits()) {
            self.service.counters().ejections.increase();
        }
        debug!(process = %backend.process, node = %backend.node, cause = %chain(&error), "trying another");
        Ok(None)
    }

    /// Waits until a process may accept the request. `refusal` is the answer if none does in time.
    async fn wait(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let limits = self.limits();
        let deadline = self.begun
            + match refusal {
                Refusal::Unreachable(_) => limits.wait_timeout.min(limits.connect_total_timeout),
                _ => limits.wait_timeout,
            };
        let batch = limits.waiting_batch;
        let mut changes = self.worker.plane.changes();
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
            let service = self.service.service.clone();
            if !service.has_endpoint() {
                continue;
            }
            tokio::select! {
                released = service.release.next(batch) => self.released = released,
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
        match self.request.body.is_ended() {
            true => self.request.head.len(),
            false => self.request.head.len() + BUFFER_LEN,
        }
    }

    fn reuse(&self) -> Reuse {
        match self.request.is_idempotent && self.request.body.is_ended() {
            true => Reuse::Any,
            false => Reuse::Settled,
        }
    }

    /// Records a failed attempt for the next choice.
    fn record_failure(&mut self, failure: Failure, connection: &Connection) {
        let backend: &Rc<LocalBackend> = connection.in_flight.backend();
        if failure == Failure::Unsent {
            self.sent -= 1;
        }
        let is_closed = matches!(failure, Failure::Unsent | Failure::ConnectionBroken);
        if connection.was_pooled && is_closed {
            // The process may just have closed an idle connection: try it again with a fresh one.
            backend.pool.clear();
        } else {
            self.tried.push(backend.backend.clone());
        }
    }

    fn repeatable(&self) -> Repeatable {
        Repeatable {
            is_idempotent: self.request.is_idempotent,
            is_body_whole: self.request.body.is_whole(),
            sent: self.sent,
            tries: self.limits().tries,
        }
    }

    /// What the client is told; `None` if it is gone.
    fn refusal(&self, failure: Failure) -> Option<Refusal> {
        let (name, limits) = (self.service.service.name.clone(), self.limits());
        Some(match failure {
            Failure::Unsent | Failure::ConnectionBroken => Refusal::ConnectionBroken(name),
            Failure::Invalid => Refusal::InvalidResponse(name),
            Failure::TooLarge => {
                Refusal::ResponseTooLarge(name, limits.head_bytes, limits.max_headers)
            }
            Failure::TooManyInterim => Refusal::TooManyInterim(name, limits.max_interim_responses),
            Failure::Lost => Refusal::Lost(name),
            Failure::TimedOut => Refusal::TimedOut(name),
            Failure::Body(failure) => Refusal::Body(failure),
            Failure::ClientGone => return None,
        })
    }

    /// Looks the service up again: the routes may have changed.
    fn refresh_service(&mut self) {
        if let Some(service) = self.worker.find(self.request.host(), self.request.path()) {
            self.service = service;
        }
    }

    fn limits(&self) -> &'a Limits {
        &self.worker.plane.limits
    }
}
