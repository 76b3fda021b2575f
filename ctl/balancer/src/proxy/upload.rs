//! A request on its way to a process: its head, then its body as it arrives.
//!
//! The body can be sent again, on another connection, until its first byte has been taken from the client. Nothing is
//! buffered: as much is read from the client as the process accepts.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, net::TcpStream, time::Instant};

use super::request::Request;
use crate::{
    core::retry::{BodyFailure, Failure},
    front::client::Client,
    http1::body::{Incoming, Length, Outgoing},
    limits::Limits,
    worker::{Worker, buffers::BUFFER_LEN},
};

/// The body and its progress.
#[derive(Debug)]
pub struct Upload {
    incoming: Incoming,
    outgoing: Outgoing,
    /// Chunks that are to be written.
    out: Vec<u8>,
    out_start: usize,
    is_started: bool,
    is_finished: bool,
    received: u64,
    /// Time spent waiting for the client.
    waited: Duration,
    waiting_since: Option<Instant>,
    /// When the last piece was written.
    last_progress: Option<Instant>,
}

/// What one attempt has sent.
#[derive(Debug, Default)]
pub struct Sent {
    head: usize,
    /// The process takes nothing more; its response may still be there to be read.
    is_broken: bool,
}

impl Upload {
    /// Of a body of this length, within the limits.
    pub fn new(length: Length, limits: &Limits) -> Self {
        let outgoing = match length {
            Length::Chunked => Outgoing::Chunked,
            _ => Outgoing::Plain,
        };
        let incoming = Incoming::new(length, limits.head_len(), limits.max_headers);
        Self {
            is_finished: incoming.is_ended(),
            incoming,
            outgoing,
            out: Vec::new(),
            out_start: 0,
            is_started: false,
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            last_progress: None,
        }
    }

    /// Whether none of it has been taken from the client yet.
    pub fn is_whole(&self) -> bool {
        !self.is_started
    }

    /// Whether all of it has been written, or there is none.
    pub fn is_ended(&self) -> bool {
        self.is_finished && self.out_start == self.out.len()
    }

    /// When the last piece of it was written.
    pub fn last_progress(&self) -> Option<Instant> {
        self.last_progress
    }

    /// Since when the process has been waiting for the client.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    fn note_received(&mut self, len: usize, limits: &Limits) -> Result<(), Failure> {
        self.received += len as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let rate_min = limits.body_rate_min.as_u64();
        let due = rate_min.saturating_mul(self.waited.as_secs());
        match self.waited > limits.body_timeout && self.received < due {
            true => Err(Failure::Body(BodyFailure::TooSlow)),
            false => Ok(()),
        }
    }

    /// Takes what has arrived into [`Self::out`].
    fn transfer(&mut self, client: &mut Client, worker: &Worker) -> Result<(), BodyFailure> {
        if self.out.capacity() == 0 {
            self.out = worker.buffers.text();
        }
        self.out.clear();
        self.out_start = 0;
        self.is_started = true;
        let bytes = client.inbox.bytes();
        let done = self
            .incoming
            .transfer(bytes, self.outgoing, BUFFER_LEN, &mut self.out)?;
        client.inbox.consume(done.consumed);
        if self.incoming.is_ended() {
            self.incoming.finish(self.outgoing, &mut self.out)?;
            self.is_finished = true;
        }
        Ok(())
    }

    fn note_passed(&mut self, len: usize, client: &mut Client) {
        if len > 0 {
            self.is_started = true;
            self.incoming.passed(len);
            client.inbox.consume(len);
            self.is_finished = self.incoming.is_ended();
        }
    }
}

impl Sent {
    /// Sends what there is of the request; completes when all of it has been written, or the process takes nothing more.
    ///
    /// # Errors
    /// The connection is broken, or the body incomplete.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut Client,
        stream: &mut TcpStream,
        request: &mut Request,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let body = &mut request.body;
            if self.is_broken {
                return Poll::Ready(Ok(()));
            }
            let head = &request.head[self.head..];
            let available = body.incoming.passable(client.inbox.len(), body.outgoing);
            let (part, len) = match body.out_start < body.out.len() {
                true => (&body.out[body.out_start..], 0),
                false => {
                    let len = available.filter(|_| !body.is_finished).unwrap_or(0);
                    (&client.inbox.bytes()[..len], len)
                }
            };
            if !head.is_empty() || !part.is_empty() {
                let written = ready!(poll_write(stream, cx, head, part));
                let written = match written {
                    Ok(written) => written,
                    Err(_) if self.head == 0 => return Poll::Ready(Err(Failure::Unsent)),
                    Err(error) => {
                        self.note_error(&error)?;
                        continue;
                    }
                };
                let of_head = written.min(head.len());
                self.head += of_head;
                if written > of_head {
                    body.last_progress = Some(Instant::now());
                }
                match len {
                    0 => body.out_start += written - of_head,
                    _ => body.note_passed(written - of_head, client),
                }
                continue;
            }
            if body.is_finished {
                return Poll::Ready(Ok(()));
            }
            if !client.inbox.is_empty() {
                body.transfer(client, worker).map_err(Failure::Body)?;
                continue;
            }
            ready!(self.poll_receive(cx, worker, client, request))?;
        }
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        worker: &Worker,
        client: &mut Client,
        request: &mut Request,
    ) -> Poll<Result<(), Failure>> {
        let body = &mut request.body;
        client.inbox.grow(&worker.buffers);
        let Poll::Ready(received) = client.poll_fill(cx, worker, BUFFER_LEN) else {
            // A client that waits for the process is not waited for.
            if !request.interim.awaits_continue() {
                body.waiting_since.get_or_insert_with(Instant::now);
            }
            return Poll::Pending;
        };
        Poll::Ready(match received {
            Ok(0) | Err(_) => Err(Failure::Body(BodyFailure::CutOff)),
            Ok(len) => body.note_received(len, &worker.plane.limits),
        })
    }

    fn note_error(&mut self, error: &io::Error) -> Result<(), Failure> {
        match error.kind() {
            // The process may have answered before it closed.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                self.is_broken = true;
                Ok(())
            }
            _ => Err(Failure::ConnectionBroken),
        }
    }

    /// Whether the whole request has been written.
    pub fn is_complete(&self, request: &Request) -> bool {
        !self.is_broken && self.head == request.head.len() && request.body.is_ended()
    }
}

fn poll_write(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    head: &[u8],
    body: &[u8],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    match (head.is_empty(), body.is_empty()) {
        (_, true) => stream.poll_write(cx, head),
        (true, false) => stream.poll_write(cx, body),
        (false, false) => {
            let parts = [io::IoSlice::new(head), io::IoSlice::new(body)];
            stream.poll_write_vectored(cx, &parts)
        }
    }
}
