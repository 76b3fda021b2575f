//! A client's socket as hyper sees it: only validated bytes, with timeouts.
//!
//! A malformed request never reaches hyper. A placeholder request takes its place: hyper passes it to the
//! request path after the requests before it, and there it is answered with the reason. What the client sends
//! afterwards is discarded, because closing a socket with unread data resets the connection, and the client
//! may then lose the response.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    framing::{Framing, Malformed},
    state::{ConnectionState, UpgradeOutcome},
};
use crate::limits::Limits;

/// Method of the placeholder for a malformed request.
pub const PLACEHOLDER_METHOD: &str = "MALFORMED";

const PLACEHOLDER_REQUEST: &[u8] = b"MALFORMED / HTTP/1.1\r\nhost: -\r\n\r\n";

/// How much is discarded after a malformed request.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// The socket of one client.
#[derive(Debug)]
pub struct ClientIo {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    framing: Framing,
    timeouts: Timeouts,
    /// Received, but not validated yet: the beginning of a head.
    held: BytesMut,
    /// Validated, but not yet read by hyper.
    accepted: BytesMut,
    failed: Option<Malformed>,
    discarded: usize,
    read_timer: Timer,
    write_timer: Timer,
}

#[derive(Debug)]
struct Timeouts {
    head: Duration,
    idle: Duration,
    write: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Idle,
    Head,
    Write,
}

/// A timeout that restarts when another event is awaited.
#[derive(Debug, Default)]
struct Timer(Option<(Wait, Pin<Box<Sleep>>)>);

impl ClientIo {
    /// Wraps `stream`.
    pub fn new(stream: TcpStream, state: Arc<ConnectionState>, limits: &Limits) -> Self {
        Self {
            stream,
            state,
            framing: Framing::new(limits.head_len(), limits.max_headers),
            timeouts: Timeouts {
                head: limits.head_timeout,
                idle: limits.idle_timeout,
                write: limits.write_timeout,
            },
            held: BytesMut::new(),
            accepted: BytesMut::new(),
            failed: None,
            discarded: 0,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.accepted.is_empty() {
                let len = buf.remaining().min(self.accepted.len());
                buf.put_slice(&self.accepted[..len]);
                self.accepted.advance(len);
                return Poll::Ready(Ok(()));
            }
            if let Some(malformed) = self.failed {
                return self.read_failed(cx, malformed);
            }
            if self.framing.awaits_upgrade() {
                ready!(self.poll_outcome(cx));
                self.scan_held();
                continue;
            }
            let before = buf.filled().len();
            if Pin::new(&mut self.stream).poll_read(cx, buf)?.is_pending() {
                match ready!(self.poll_read_timer(cx)) {
                    // hyper sees the end of the stream and closes.
                    Wait::Idle => return Poll::Ready(Ok(())),
                    Wait::Head | Wait::Write => self.refuse(Malformed::TooSlow),
                }
                continue;
            }
            let is_end = buf.filled().len() == before;
            self.scan_read(buf, before);
            if is_end || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Validates what was just read into `buf`. What is not valid or not complete is removed from `buf`.
    fn scan_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let fresh = &buf.filled()[before..];
        if self.held.is_empty() {
            // The common case: complete requests and parts of bodies are not copied.
            let scan = self.framing.scan(fresh);
            self.held.extend_from_slice(&fresh[scan.accepted..]);
            buf.set_filled(before + scan.accepted);
            self.after_scan(scan.malformed);
        } else {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            self.scan_held();
        }
    }

    fn scan_held(&mut self) {
        let scan = self.framing.scan(&self.held);
        let passing = self.held.split_to(scan.accepted);
        self.accepted.unsplit(passing);
        self.after_scan(scan.malformed);
    }

    fn after_scan(&mut self, malformed: Option<Malformed>) {
        if self.framing.awaits_upgrade() {
            self.state.ask();
        }
        if let Some(malformed) = malformed {
            self.refuse(malformed);
        }
    }

    fn refuse(&mut self, malformed: Malformed) {
        if !malformed.is_in_body() {
            self.state.refuse(malformed);
            self.accepted.extend_from_slice(PLACEHOLDER_REQUEST);
        }
        self.held.clear();
        self.failed = Some(malformed);
    }

    /// A malformed body is an error for hyper; bytes after a malformed head are discarded.
    fn read_failed(&mut self, cx: &mut Context<'_>, malformed: Malformed) -> Poll<io::Result<()>> {
        if malformed.is_in_body() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, malformed)));
        }
        let mut waste = [0; 4096];
        while self.discarded < DISCARD_BYTES_MAX {
            let mut waste = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut waste))?;
            if waste.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.discarded += waste.filled().len();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.register(cx.waker());
        match self.state.outcome() {
            None => return Poll::Pending,
            Some(UpgradeOutcome::Http) => self.framing.continue_http(),
            Some(UpgradeOutcome::Tunnel) => self.framing.tunnel(),
        }
        Poll::Ready(())
    }

    /// Completes when the client has exceeded a timeout.
    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<Wait> {
        // Register first: a request that ends in between must wake this task.
        self.state.register(cx.waker());
        let is_busy = self.state.is_active() || self.write_timer.0.is_some();
        if is_busy || !self.framing.is_in_head() {
            self.read_timer.stop();
            return Poll::Pending;
        }
        let (wait, limit) = match self.held.is_empty() {
            true => (Wait::Idle, self.timeouts.idle),
            false => (Wait::Head, self.timeouts.head),
        };
        ready!(self.read_timer.poll(cx, wait, limit));
        self.read_timer.stop();
        Poll::Ready(wait)
    }

    /// Returns the result of a write, or an error if the client has not read for too long.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer.stop();
            return written;
        }
        ready!(self.write_timer.poll(cx, Wait::Write, self.timeouts.write));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, wait: Wait, limit: Duration) -> Poll<()> {
        if self.0.as_ref().is_none_or(|(running, _)| *running != wait) {
            self.0 = Some((wait, Box::pin(sleep(limit))));
        }
        match &mut self.0 {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().read(cx, buf)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
