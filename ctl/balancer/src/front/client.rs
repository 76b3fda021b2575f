//! One client's connection: what it has sent, what is to be written to it, and how long it is waited for.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{io::AsyncWrite, net::TcpStream, time::Instant};

use super::state::ConnectionState;
use crate::worker::{
    Worker,
    buffers::{BUFFER_LEN, Inbox},
    timer::Timer,
};

/// The client at the other end of a connection.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub stream: TcpStream,
    /// What it has sent.
    pub inbox: Inbox,
    /// What is to be written to it first.
    pub out: Vec<u8>,
    /// When it has closed its sending direction, as far as that has been read, or taken something after that.
    pub ended: Option<Instant>,
    /// The state of the connection that others see.
    pub state: Arc<ConnectionState>,
    /// Whether it has sent a complete request.
    pub has_begun: bool,
    /// Whether its address has too many connections.
    pub is_over_limit: bool,
    /// Its address as text.
    pub address: Box<str>,
    /// When the present request was read, or the last one answered.
    pub now: Instant,
    /// The timer of whatever is being waited for.
    pub timer: Timer,
    /// When the connection was first seen idle while the balancer ends.
    pub stopped: Option<Instant>,
    out_start: usize,
    /// Since when it has not taken what there is to be written.
    blocked: Option<Instant>,
}

/// Why a connection ends without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Client {
    /// For a connection that was accepted now.
    pub fn new(stream: TcpStream, address: SocketAddr, state: Arc<ConnectionState>) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            out: Vec::new(),
            ended: None,
            state,
            has_begun: false,
            is_over_limit: false,
            address: address.ip().to_canonical().to_string().into(),
            now: Instant::now(),
            timer: Timer::default(),
            stopped: None,
            out_start: 0,
            blocked: None,
        }
    }

    /// Whether the client has closed its connection, or its sending direction.
    pub fn is_gone(&self) -> bool {
        let mut closed = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        poll(&mut closed, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Reads what the client has sent, up to `len_max` unconsumed bytes in all. Returns how many bytes were added: none once
    /// it sends nothing more.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        len_max: usize,
    ) -> Poll<io::Result<usize>> {
        if self.ended.is_some() {
            return Poll::Ready(Ok(0));
        }
        let read = self
            .inbox
            .poll_fill(cx, &mut self.stream, &worker.buffers, len_max);
        if let Poll::Ready(Ok(0)) = read {
            self.ended = Some(Instant::now());
        }
        read
    }

    /// Reads ahead while nothing of the client is needed, so that its end is noticed. Never completes otherwise.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn watch(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Result<(), Gone> {
        while self.ended.is_none() && self.inbox.len() < BUFFER_LEN {
            match self.poll_fill(cx, worker, BUFFER_LEN) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Gone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Whether something is still to be written.
    pub fn has_out(&self) -> bool {
        self.out_start < self.out.len()
    }

    /// Writes [`Self::out`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<Result<(), Gone>> {
        while self.has_out() {
            let stream = Pin::new(&mut self.stream);
            let written = stream.poll_write(cx, &self.out[self.out_start..]);
            self.out_start += ready!(self.note_write(written))?;
        }
        self.end_out(worker);
        Poll::Ready(Ok(()))
    }

    /// Writes [`Self::out`] and then `bytes`; returns how many of the latter were written.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        let stream = Pin::new(&mut self.stream);
        let out = &self.out[self.out_start..];
        let written = match out.is_empty() {
            true => stream.poll_write(cx, bytes),
            false => {
                let parts = [io::IoSlice::new(out), io::IoSlice::new(bytes)];
                stream.poll_write_vectored(cx, &parts)
            }
        };
        let out_len = out.len();
        let len = ready!(self.note_write(written))?;
        self.out_start += len.min(out_len);
        if !self.has_out() {
            self.end_out(worker);
        }
        Poll::Ready(Ok(len.saturating_sub(out_len)))
    }

    /// When a client that does not read is given up; `None` unless it has not read everything.
    pub fn write_deadline(&self, worker: &Worker) -> Option<Instant> {
        let timeout = worker.plane.limits.write_timeout;
        self.blocked.map(|since| since + timeout)
    }

    /// Writes everything, or gives the client up after the write timeout.
    ///
    /// # Errors
    /// The connection is broken, or the client does not read.
    pub async fn flush(&mut self, worker: &Worker) -> Result<(), Gone> {
        poll_fn(|cx| {
            if let Poll::Ready(flushed) = self.poll_flush(cx, worker) {
                return Poll::Ready(flushed);
            }
            if let Some(deadline) = self.write_deadline(worker) {
                ready!(self.timer.poll(cx, deadline));
                return Poll::Ready(Err(Gone));
            }
            Poll::Pending
        })
        .await
    }

    fn end_out(&mut self, worker: &Worker) {
        self.out_start = 0;
        worker.buffers.reuse_text(std::mem::take(&mut self.out));
    }

    fn note_write(&mut self, written: Poll<io::Result<usize>>) -> Poll<Result<usize, Gone>> {
        match written {
            Poll::Pending => {
                self.blocked.get_or_insert_with(Instant::now);
                Poll::Pending
            }
            Poll::Ready(Ok(len)) if len > 0 => {
                self.blocked = None;
                self.ended = self.ended.map(|_| Instant::now());
                Poll::Ready(Ok(len))
            }
            Poll::Ready(_) => Poll::Ready(Err(Gone)),
        }
    }
}
