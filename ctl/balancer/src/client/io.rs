//! A client's socket as hyper sees it: only validated bytes, with timeouts.
//!
//! A malformed request never reaches hyper. A placeholder request takes its place: hyper passes it to the
//! request path after the requests before it, and there it is answered with the reason.
//!
//! A client may close its sending direction and still wait for its responses: hyper sees the end of the stream
//! only after those. Closing lingers: a socket that is closed with unread data resets the connection, and the
//! client may then lose the response.

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
};

use super::{
    edits,
    framing::{Framing, Malformed, Scan},
    state::{ConnectionState, UpgradeOutcome},
    timer::{Timeouts, Timer, Wait},
};
use crate::{limits::Limits, upstream::health::uptime};

/// Method of the placeholder for a malformed request.
pub const PLACEHOLDER_METHOD: &str = "MALFORMED";

const PLACEHOLDER_REQUEST: &[u8] = b"MALFORMED / HTTP/1.1\r\nhost: -\r\n\r\n";

/// A response that was written this long ago has been received.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The socket of one client.
#[derive(Debug)]
pub struct ClientIo {
    stream: Arc<TcpStream>,
    state: Arc<ConnectionState>,
    framing: Framing,
    timeouts: Timeouts,
    /// Received, but not validated yet: the beginning of a head.
    held: BytesMut,
    /// Validated, but not yet read by hyper.
    accepted: BytesMut,
    /// Interim responses that are being written.
    interim: BytesMut,
    failed: Option<Malformed>,
    /// The client sends nothing more.
    ended: bool,
    /// The connection was idle for too long: nobody waits for a response.
    expired: bool,
    /// How much has been discarded since the close began.
    lingered: Option<usize>,
    read_timer: Timer,
    write_timer: Timer,
    close_timer: Timer,
}

impl ClientIo {
    /// Wraps `stream`.
    pub fn new(stream: Arc<TcpStream>, state: Arc<ConnectionState>, limits: &Limits) -> Self {
        Self {
            stream,
            state,
            framing: Framing::new(limits.head_len(), limits.max_headers),
            timeouts: Timeouts::new(limits),
            held: BytesMut::new(),
            accepted: BytesMut::new(),
            interim: BytesMut::new(),
            failed: None,
            ended: false,
            expired: false,
            lingered: None,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            close_timer: Timer::default(),
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
            if self.ended {
                return self.read_ended(cx);
            }
            let before = buf.filled().len();
            if self.receive(cx, buf)?.is_pending() {
                match ready!(self.poll_read_timer(cx)) {
                    Wait::Idle => {
                        // hyper sees the end of the stream and closes.
                        self.expired = true;
                        return Poll::Ready(Ok(()));
                    }
                    _ => self.refuse(Malformed::TooSlow),
                }
                continue;
            }
            self.ended = buf.filled().len() == before;
            self.scan_read(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn receive(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Validates what was just read into `buf`. What is not valid or not complete is removed from `buf`.
    fn scan_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let fresh = &buf.filled()[before..];
        if !self.held.is_empty() {
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            return self.scan_held();
        }
        let scan = self.framing.scan(fresh);
        self.held.extend_from_slice(&fresh[scan.accepted..]);
        if scan.edits.is_empty() {
            // The common case: complete requests and parts of bodies are not copied.
            buf.set_filled(before + scan.accepted);
        } else {
            edits::apply(&scan.edits, &fresh[..scan.accepted], &mut self.accepted);
            buf.set_filled(before);
        }
        self.after_scan(&scan);
    }

    fn scan_held(&mut self) {
        let scan = self.framing.scan(&self.held);
        let accepted = self.held.split_to(scan.accepted);
        match scan.edits.is_empty() {
            true => self.accepted.unsplit(accepted),
            false => edits::apply(&scan.edits, &accepted, &mut self.accepted),
        }
        self.after_scan(&scan);
    }

    fn after_scan(&mut self, scan: &Scan) {
        if let Some(malformed) = scan.malformed {
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

    /// A malformed body is an error for hyper; nothing follows a malformed head.
    fn read_failed(&self, cx: &mut Context<'_>, malformed: Malformed) -> Poll<io::Result<()>> {
        if malformed.is_in_body() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, malformed)));
        }
        self.state.register(cx.waker());
        // The placeholder is a request as well.
        match self.state.is_active() || self.state.begun() <= self.framing.heads() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    /// The client has closed its sending direction: hyper learns that when all requests are answered, because it
    /// would cancel them. A client that is gone altogether looks the same, so there is a timeout.
    fn read_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.register(cx.waker());
        let is_waiting = self.state.is_active() || self.state.begun() < self.framing.heads();
        if is_waiting && self.framing.is_in_head() {
            ready!(
                self.close_timer
                    .poll(cx, Wait::Close, self.timeouts.half_close)
            );
        }
        Poll::Ready(Ok(()))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.register(cx.waker());
        match self.state.outcome(self.framing.heads()) {
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
        let is_busy = self.state.is_active() || self.write_timer.is_running();
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

    fn send<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                ready!(self.write_timer.poll(cx, Wait::Write, self.timeouts.write));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.write_timer.stop();
                    self.close_timer.stop();
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// Writes interim responses. hyper flushes only when all it has written is out, and the request path holds
    /// the response back until they are.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.register(cx.waker());
        loop {
            if self.interim.is_empty() {
                match self.state.take_interim() {
                    None => return Poll::Ready(Ok(())),
                    Some(queued) => self.interim.extend_from_slice(&queued),
                }
            }
            while !self.interim.is_empty() {
                let interim = self.interim.split();
                let written = self.send(cx, |stream| stream.try_write(&interim));
                let len = match written {
                    Poll::Ready(Ok(len)) => len,
                    _ => 0,
                };
                self.interim = interim;
                self.interim.advance(len);
                ready!(written)?;
            }
            self.state.interim_written();
        }
    }

    /// Closes the sending direction, then discards what the client still sends until it closes too.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingered.is_none() {
            rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write)?;
            self.lingered = Some(0);
            self.close_timer.stop();
            // Nothing is on its way to a client whose last response is long past.
            let idle = self.state.idle_for(uptime());
            self.ended |= self.expired
                || self.state.is_recycled()
                || idle.is_some_and(|idle| idle >= SETTLED_AFTER);
        }
        let mut discarded = self.lingered.unwrap_or_default();
        let mut waste = [0; 16 * 1024];
        while !self.ended && discarded < self.timeouts.linger_len {
            let mut waste = ReadBuf::new(&mut waste);
            match self.receive(cx, &mut waste) {
                Poll::Ready(Ok(())) if waste.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => {
                    discarded += waste.filled().len();
                    self.lingered = Some(discarded);
                }
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => {
                    ready!(
                        self.close_timer
                            .poll(cx, Wait::Linger, self.timeouts.linger)
                    );
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
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
        self.get_mut().send(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .send(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_interim(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.framing.is_tunnel() {
            // The other direction of a tunnel stays open.
            rustix::net::shutdown(&*this.stream, rustix::net::Shutdown::Write)?;
            return Poll::Ready(Ok(()));
        }
        this.poll_linger(cx)
    }
}
