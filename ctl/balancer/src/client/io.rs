//! A client's socket as hyper sees it: only bytes that are judged well-formed, and never for longer than allowed.
//!
//! A malformed request is withheld. A stand-in takes its place, which hyper hands to the request path in its
//! turn, after the requests before it; there it is answered with the reason. The rest of what the client
//! sends is thrown away, so that closing the socket does not reset the connection before the client has
//! read that answer.

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
    gate::{Gate, Verdict},
};
use crate::limits::Limits;

/// Method of the request that stands in for a malformed one.
pub const STAND_IN: &str = "MALFORMED";

const STAND_IN_REQUEST: &[u8] = b"MALFORMED / HTTP/1.1\r\nhost: -\r\n\r\n";

/// Bytes of a client that are thrown away after a malformed request.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// The socket of one client.
#[derive(Debug)]
pub struct ClientIo {
    stream: TcpStream,
    gate: Arc<Gate>,
    framing: Framing,
    timeouts: Timeouts,
    /// Read, but not judged: the beginning of a head.
    held: BytesMut,
    /// Judged, but not yet taken by hyper.
    cleared: BytesMut,
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

/// Runs while one thing is waited for.
#[derive(Debug, Default)]
struct Timer(Option<(Wait, Pin<Box<Sleep>>)>);

impl ClientIo {
    /// Guards `stream`.
    pub fn new(stream: TcpStream, gate: Arc<Gate>, limits: &Limits) -> Self {
        Self {
            stream,
            gate,
            framing: Framing::new(limits.head_len(), limits.max_headers),
            timeouts: Timeouts {
                head: limits.head_timeout,
                idle: limits.idle_timeout,
                write: limits.write_timeout,
            },
            held: BytesMut::new(),
            cleared: BytesMut::new(),
            failed: None,
            discarded: 0,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.cleared.is_empty() {
                let len = buf.remaining().min(self.cleared.len());
                buf.put_slice(&self.cleared[..len]);
                self.cleared.advance(len);
                return Poll::Ready(Ok(()));
            }
            if let Some(malformed) = self.failed {
                return self.read_failed(cx, malformed);
            }
            if self.framing.awaits_verdict() {
                ready!(self.poll_verdict(cx));
                self.judge_held();
                continue;
            }
            let before = buf.filled().len();
            if Pin::new(&mut self.stream).poll_read(cx, buf)?.is_pending() {
                match ready!(self.poll_read_timer(cx)) {
                    // To hyper it looks like the end, so that it closes.
                    Wait::Idle => return Poll::Ready(Ok(())),
                    Wait::Head | Wait::Write => self.refuse(Malformed::TooSlow),
                }
                continue;
            }
            let is_end = buf.filled().len() == before;
            self.judge(buf, before);
            if is_end || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Judges what was just read into `buf`, behind what is held. What may not pass is taken out of it.
    fn judge(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let fresh = &buf.filled()[before..];
        if self.held.is_empty() {
            // The usual case: whole requests, or parts of bodies, which pass without being copied.
            let scan = self.framing.scan(fresh);
            self.held.extend_from_slice(&fresh[scan.cleared..]);
            buf.set_filled(before + scan.cleared);
            self.after_scan(scan.malformed);
        } else {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            self.judge_held();
        }
    }

    fn judge_held(&mut self) {
        let scan = self.framing.scan(&self.held);
        let passing = self.held.split_to(scan.cleared);
        self.cleared.unsplit(passing);
        self.after_scan(scan.malformed);
    }

    fn after_scan(&mut self, malformed: Option<Malformed>) {
        if self.framing.awaits_verdict() {
            self.gate.ask();
        }
        if let Some(malformed) = malformed {
            self.refuse(malformed);
        }
    }

    fn refuse(&mut self, malformed: Malformed) {
        if !malformed.is_in_body() {
            self.gate.refuse(malformed);
            self.cleared.extend_from_slice(STAND_IN_REQUEST);
        }
        self.held.clear();
        self.failed = Some(malformed);
    }

    /// The bytes of a malformed body end here; those after a malformed head are thrown away.
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

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gate.register(cx.waker());
        match self.gate.verdict() {
            None => return Poll::Pending,
            Some(Verdict::Http) => self.framing.go_on(),
            Some(Verdict::Tunnel) => self.framing.tunnel(),
        }
        Poll::Ready(())
    }

    /// Ends when the client has kept us waiting for too long.
    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<Wait> {
        // Registered before it is looked at: a request that ends in between wakes us.
        self.gate.register(cx.waker());
        let is_busy = self.gate.is_active() || self.write_timer.0.is_some();
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

    /// Passes on what a write gave, unless the client has not read for too long.
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
