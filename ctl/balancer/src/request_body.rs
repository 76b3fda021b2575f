//! A request's body, which can be replayed on another connection until its first byte has been forwarded.
//!
//! All attempts share the client's body. Each attempt gets a [`RequestBody`] that reads from it; a new
//! attempt invalidates the previous one's. Nothing is buffered: as much is read from the client as the
//! process accepts.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{headers::safe_trailers, interim::InterimResponses, limits::Limits};

/// The client's body and its progress.
#[derive(Debug, Clone)]
pub struct SharedBody(Arc<Mutex<State>>);

/// The body as sent by one attempt.
#[derive(Debug)]
pub struct RequestBody {
    shared: SharedBody,
    attempt: usize,
    empty: bool,
    interim: Arc<InterimResponses>,
    stall: Option<Pin<Box<Sleep>>>,
}

/// Why a request's body is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    /// The client paused for longer than permitted.
    #[error("the client stopped sending the request's body (--body-timeout)")]
    Stalled,
    /// The client sends more slowly than permitted.
    #[error("the client sends the request's body too slowly (--body-rate-min)")]
    TooSlow,
    /// The client went away or sent a malformed body.
    #[error("the request's body is malformed or was cut off")]
    Broken,
    /// A newer attempt reads the body.
    #[error("the request is being sent to another process")]
    Superseded,
}

#[derive(Debug)]
struct State {
    body: Incoming,
    attempt: usize,
    started: bool,
    ended: bool,
    failure: Option<BodyFailure>,
    waiting: bool,
    last_progress: Instant,
    pause_allowed: Duration,
    /// Bytes per second.
    rate_min: u64,
    received: u64,
    /// Time spent waiting for the client.
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl SharedBody {
    /// Takes the client's body, which must arrive within the limits.
    pub fn new(body: Incoming, limits: &Limits) -> Self {
        let ended = body.is_end_stream();
        Self(Arc::new(Mutex::new(State {
            body,
            attempt: 0,
            started: false,
            ended,
            failure: None,
            waiting: false,
            last_progress: Instant::now(),
            pause_allowed: limits.body_timeout,
            rate_min: limits.body_rate_min.as_u64(),
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
        })))
    }

    /// The body for the next attempt; `interim` are the interim responses to the same request.
    pub fn next_attempt(&self, interim: &Arc<InterimResponses>) -> RequestBody {
        let mut state = self.lock();
        state.attempt += 1;
        state.last_progress = Instant::now();
        state.waiting = false;
        RequestBody {
            shared: self.clone(),
            attempt: state.attempt,
            empty: state.ended,
            interim: interim.clone(),
            stall: None,
        }
    }

    /// Whether none of it has been forwarded yet, so that it can be sent from its beginning.
    pub fn is_replayable(&self) -> bool {
        !self.lock().started
    }

    /// Whether all of it has been forwarded.
    pub fn is_ended(&self) -> bool {
        self.lock().ended
    }

    /// When the last piece was forwarded, or the attempt began.
    pub fn last_progress(&self) -> Instant {
        self.lock().last_progress
    }

    /// Whether the process would accept more than the client has sent.
    pub fn waits_for_client(&self) -> bool {
        self.lock().waiting
    }

    /// Why it is incomplete, if it has failed.
    pub fn failure(&self) -> Option<BodyFailure> {
        self.lock().failure
    }

    /// Whether its length is not known in advance.
    pub fn is_chunked(&self) -> bool {
        let state = self.lock();
        !state.ended && state.body.size_hint().exact().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        let this = self.get_mut();
        let mut state = this.shared.lock();
        if state.attempt != this.attempt {
            return Poll::Ready(Some(Err(BodyFailure::Superseded)));
        }
        let Poll::Ready(frame) = Pin::new(&mut state.body).poll_frame(context) else {
            if this.interim.awaits_continue() {
                // The client waits for the process, not the other way round.
                return Poll::Pending;
            }
            state.waiting = true;
            state.waiting_since.get_or_insert_with(Instant::now);
            let pause = state.pause_allowed;
            let stall = this.stall.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(stall.as_mut().poll(context));
            return Poll::Ready(Some(Err(state.fail(BodyFailure::Stalled))));
        };
        this.stall = None;
        Poll::Ready(state.pass(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.empty || self.shared.lock().ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.empty {
            return SizeHint::with_exact(0);
        }
        self.shared.lock().body.size_hint()
    }
}

impl State {
    fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    ) -> Option<Result<Frame<Bytes>, BodyFailure>> {
        self.waiting = false;
        self.last_progress = Instant::now();
        self.ended = frame.is_none() || self.body.is_end_stream();
        match frame? {
            Ok(frame) => {
                self.started = true;
                if self.is_too_slow(&frame) {
                    return Some(Err(self.fail(BodyFailure::TooSlow)));
                }
                Some(Ok(safe_trailers(frame)))
            }
            Err(_) => Some(Err(self.fail(BodyFailure::Broken))),
        }
    }

    fn is_too_slow(&mut self, frame: &Frame<Bytes>) -> bool {
        self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
        let waited = self.waiting_since.take();
        self.waited += waited.map_or(Duration::ZERO, |since| since.elapsed());
        let due = self.rate_min.saturating_mul(self.waited.as_secs());
        self.waited > self.pause_allowed && self.received < due
    }

    fn fail(&mut self, failure: BodyFailure) -> BodyFailure {
        self.failure = Some(failure);
        failure
    }
}
