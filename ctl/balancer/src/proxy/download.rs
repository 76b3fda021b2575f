//! A response on its way to the client, while the rest of the request may still be on its way to the process.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;

use super::{request::Request, upload::Sent};
use crate::{
    back::pool::Link,
    front::client::{Client, Gone},
    http1::body::{Incoming, Outgoing},
    metrics::Counted,
    worker::{Worker, buffers::BUFFER_LEN},
};

/// The longest part of a body that is copied behind the head.
const COPY_MAX: usize = 4 * 1024;

/// The body of one response. Its head waits in the client's [`Client::out`].
#[derive(Debug)]
pub struct Download<'a> {
    /// The thread.
    pub worker: &'a Worker,
    /// Who gets it.
    pub client: &'a mut Client,
    /// What it answers.
    pub request: &'a mut Request,
    /// How much of that was sent.
    pub sent: Sent,
    /// The connection that carries it.
    pub link: &'a mut Link,
    /// How much of it has been received.
    pub incoming: Incoming,
    /// How it is sent on.
    pub outgoing: Outgoing,
    /// Whether all of it has been taken.
    pub is_finished: bool,
    /// The request, counted until then.
    pub counted: Option<Counted>,
}

impl Download<'_> {
    /// Sends the response. Returns whether the whole request was sent.
    ///
    /// # Errors
    /// Either side is gone.
    pub async fn run(&mut self) -> Result<bool, Gone> {
        poll_fn(|cx| self.poll(cx)).await?;
        Ok(self.sent.is_complete(self.request))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let stream = &mut self.link.stream;
        let is_sent = match self
            .sent
            .poll(cx, self.worker, self.client, stream, self.request)
        {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
            Poll::Pending => false,
        };
        loop {
            if let Poll::Ready(done) = self.poll_receive(cx) {
                return Poll::Ready(done);
            }
            if is_sent {
                self.client.watch(cx, self.worker)?;
            }
            let Some(deadline) = self.deadline() else {
                return Poll::Pending;
            };
            ready!(self.client.timer.poll(cx, deadline));
            if Instant::now() >= deadline {
                return Poll::Ready(Err(Gone));
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            self.take_end()?;
            if self.is_finished {
                // Before the last write: who has the answer finds the request no longer in flight.
                self.counted = None;
            }
            let len = self.passable();
            if (1..=COPY_MAX).contains(&len) && self.client.has_out() {
                // One write of head and body costs less than two parts.
                let bytes = &self.link.inbox.bytes()[..len];
                self.client.out.extend_from_slice(bytes);
                self.incoming.passed(len);
                self.link.inbox.consume(len);
            } else if len > 0 {
                let bytes = &self.link.inbox.bytes()[..len];
                let written = ready!(self.client.poll_write(cx, self.worker, bytes))?;
                self.incoming.passed(written);
                self.link.inbox.consume(written);
            } else if self.client.has_out() {
                ready!(self.client.poll_flush(cx, self.worker))?;
            } else if self.is_finished {
                return Poll::Ready(Ok(()));
            } else if !self.link.inbox.is_empty() {
                self.transfer()?;
            } else {
                ready!(self.poll_fill(cx))?;
            }
        }
    }

    /// How many bytes of the inbox can be written as they are.
    fn passable(&self) -> usize {
        let len = self.link.inbox.len();
        let passable = self.incoming.passable(len, self.outgoing);
        passable.filter(|_| !self.is_finished).unwrap_or(0)
    }

    fn transfer(&mut self) -> Result<(), Gone> {
        let bytes = self.link.inbox.bytes();
        let out = &mut self.client.out;
        let done = self
            .incoming
            .transfer(bytes, self.outgoing, BUFFER_LEN, out);
        self.link.inbox.consume(done.map_err(|_| Gone)?.consumed);
        Ok(())
    }

    /// Appends the body's end once that has been received.
    fn take_end(&mut self) -> Result<(), Gone> {
        if !self.is_finished && self.incoming.is_ended() {
            let finished = self.incoming.finish(self.outgoing, &mut self.client.out);
            finished.map_err(|_| Gone)?;
            self.is_finished = true;
        }
        Ok(())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let buffers = &self.worker.buffers;
        self.link.inbox.grow(buffers);
        let stream = &mut self.link.stream;
        let read = ready!(self.link.inbox.poll_fill(cx, stream, buffers, BUFFER_LEN));
        Poll::Ready(match (read, &self.incoming) {
            (Ok(1..), _) => Ok(()),
            (Ok(0), Incoming::UntilClose) => {
                // The end is a chunk, or the end of the client's connection.
                let finished = self.incoming.finish(self.outgoing, &mut self.client.out);
                self.is_finished = true;
                finished.map_err(|_| Gone)
            }
            // What arrived so far must not look like the whole.
            _ => Err(Gone),
        })
    }

    /// When the client, or the process, is given up.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.worker.plane.limits;
        let waiting = self.request.body.waiting_since();
        let deadlines = [
            self.client.write_deadline(self.worker),
            self.client
                .ended
                .map(|since| since + limits.half_close_timeout),
            waiting.map(|since| since + limits.body_timeout),
        ];
        deadlines.into_iter().flatten().min()
    }
}
