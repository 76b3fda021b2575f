//! A total deadline for request bodies: a client that trickles bytes holds its connection for a bounded time only.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tucano_api::units::Span;

/// Rate that extends the deadline, in bytes per second: large uploads are as slow as the network, but never slower.
const MIN_RATE: u64 = 4096;

/// The body arrived too slowly.
#[derive(Debug, thiserror::Error)]
#[error(
    "the body arrived too slowly: after {0} (limits.body_time) it must average {MIN_RATE} bytes per second"
)]
pub struct SlowBody(pub Span);

/// A body that fails when its deadline has passed.
#[derive(Debug)]
pub(super) struct BodyDeadline<B = Incoming> {
    body: B,
    time: Duration,
    started: Instant,
    received: u64,
    deadline: Pin<Box<Sleep>>,
}

impl<B> BodyDeadline<B> {
    /// Allows `time`, and more for what has arrived at the least rate.
    pub(super) fn new(body: B, time: Duration) -> Self {
        let started = Instant::now();
        Self {
            body,
            time,
            started,
            received: 0,
            deadline: Box::pin(sleep_until(started + time)),
        }
    }

    fn allowed(&self) -> Instant {
        self.started + self.time + Duration::from_secs(self.received / MIN_RATE)
    }
}

impl<B> Body for BodyDeadline<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        while this.deadline.as_mut().poll(context).is_ready() {
            let allowed = this.allowed();
            if allowed <= Instant::now() {
                return Poll::Ready(Some(Err(SlowBody(Span(this.time)).into())));
            }
            this.deadline.as_mut().reset(allowed);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
