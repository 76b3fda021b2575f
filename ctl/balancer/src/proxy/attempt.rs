//! One attempt: sends the request to one process and waits for the head of the response.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{request::Request, upload::Sent};
use crate::{
    back::Connection,
    core::{
        retry::{BodyFailure, Failure},
        waiting::CHECK_INTERVAL,
    },
    front::client::Client,
    http1::response::{BadResponse, ResponseParser},
    worker::{Worker, buffers::BUFFER_LEN},
};

/// One attempt that has begun.
#[derive(Debug)]
pub struct Attempt<'a> {
    worker: &'a Worker,
    client: &'a mut Client,
    request: &'a mut Request,
    parser: &'a mut ResponseParser,
    connection: &'a mut Connection,
    /// The request's place in a batch of requests that have waited.
    released: &'a mut Option<OwnedSemaphorePermit>,
    sent: Sent,
    begun: Instant,
}

impl From<BadResponse> for Failure {
    fn from(bad: BadResponse) -> Self {
        match bad {
            BadResponse::Invalid => Self::Invalid,
            BadResponse::TooLarge => Self::TooLarge,
        }
    }
}

impl<'a> Attempt<'a> {
    /// Over `connection`.
    pub fn new(
        worker: &'a Worker,
        client: &'a mut Client,
        request: &'a mut Request,
        parser: &'a mut ResponseParser,
        connection: &'a mut Connection,
        released: &'a mut Option<OwnedSemaphorePermit>,
    ) -> Self {
        parser.reset();
        Self {
            begun: client.now,
            worker,
            client,
            request,
            parser,
            connection,
            released,
            sent: Sent::default(),
        }
    }

    /// Sends the request until the response begins. Returns the length of its head, which is the first in the connection's
    /// inbox, and how much of the request was sent.
    ///
    /// # Errors
    /// There is no response.
    pub async fn run(&mut self) -> Result<(usize, Sent), Failure> {
        let answered = poll_fn(|cx| self.poll(cx)).await;
        self.connection.in_flight.stop_waiting();
        Ok((answered?, std::mem::take(&mut self.sent)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        loop {
            let is_sent = self.poll_send(cx)?;
            if let Poll::Ready(len) = self.poll_receive(cx)? {
                return Poll::Ready(Ok(len));
            }
            if self.client.has_out() && self.client.poll_flush(cx, self.worker).is_ready_err() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            if self.connection.in_flight.backend().backend.is_lost() {
                return Poll::Ready(Err(Failure::Lost));
            }
            self.connection.in_flight.wake_when_lost(cx.waker());
            if is_sent {
                let watched = self.client.watch(cx, self.worker);
                watched.map_err(|_| Failure::ClientGone)?;
            }
            let deadline = self.deadline();
            if self.client.timer.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            self.expire(Instant::now())?;
        }
    }

    /// Whether nothing is left to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let stream = &mut self.connection.link.stream;
        let sent = self
            .sent
            .poll(cx, self.worker, self.client, stream, self.request);
        match sent {
            Poll::Ready(sent) => sent.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        let len_max = self.worker.plane.limits.head_len() + BUFFER_LEN;
        loop {
            if let Some(len) = self.parse()? {
                return Poll::Ready(Ok(len));
            }
            let link = &mut self.connection.link;
            let inbox = &mut link.inbox;
            match inbox.poll_fill(cx, &mut link.stream, &self.worker.buffers, len_max) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Failure::ConnectionBroken)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The length of the response's head, once it is complete. Interim responses before it are forwarded.
    fn parse(&mut self) -> Result<Option<usize>, Failure> {
        let inbox = &mut self.connection.link.inbox;
        while !inbox.is_empty() {
            let limits = self.worker.head_limits();
            let Some(len) = self.parser.parse(inbox.bytes_mut(), limits)? else {
                break;
            };
            if !matches!(self.parser.line().status, 100 | 102..=199) {
                return Ok(Some(len));
            }
            let is_http_11 = self.request.recipient.is_http_11;
            let head = &inbox.bytes()[..len];
            self.request
                .interim
                .forward(head, self.parser, is_http_11, &mut self.client.out)?;
            inbox.consume(len);
            self.parser.reset();
        }
        Ok(None)
    }

    /// When something has to be done although nothing happens.
    fn deadline(&self) -> Instant {
        let limits = &self.worker.plane.limits;
        let body = &self.request.body;
        let own = match body.waiting_since() {
            // The timeout of the response runs only while the process has all it needs to make progress.
            Some(since) => since + limits.body_timeout,
            None => self.progress() + limits.response_timeout,
        };
        let others = [
            self.released.as_ref().map(|_| self.begun + CHECK_INTERVAL),
            (self.request.interim.awaits_continue()).then(|| self.begun + limits.continue_timeout),
            self.half_closed(),
            self.client.write_deadline(self.worker),
        ];
        others.into_iter().flatten().fold(own, Instant::min)
    }

    fn progress(&self) -> Instant {
        let progress = self.request.body.last_progress();
        progress.map_or(self.begun, |at| at.max(self.begun))
    }

    /// When a client that has closed its sending direction is given up: one that is gone altogether looks the same.
    fn half_closed(&self) -> Option<Instant> {
        let timeout = self.worker.plane.limits.half_close_timeout;
        self.client
            .ended
            .map(|since| since.max(self.begun) + timeout)
    }

    /// Does what is due at `now`.
    fn expire(&mut self, now: Instant) -> Result<(), Failure> {
        let limits = &self.worker.plane.limits;
        let is_over = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if now >= self.begun + CHECK_INTERVAL {
            *self.released = None;
        }
        if self.request.interim.awaits_continue() && now >= self.begun + limits.continue_timeout {
            self.request.interim.write_continue(&mut self.client.out);
        }
        if is_over(self.half_closed()) || is_over(self.client.write_deadline(self.worker)) {
            return Err(Failure::ClientGone);
        }
        match self.request.body.waiting_since() {
            Some(since) if now >= since + limits.body_timeout => {
                Err(Failure::Body(BodyFailure::Stalled))
            }
            None if now >= self.progress() + limits.response_timeout => Err(Failure::TimedOut),
            _ => Ok(()),
        }
    }
}

trait IsReadyErr {
    fn is_ready_err(&self) -> bool;
}

impl<T, E> IsReadyErr for Poll<Result<T, E>> {
    fn is_ready_err(&self) -> bool {
        matches!(self, Poll::Ready(Err(_)))
    }
}
