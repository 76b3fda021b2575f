//! A connection to a process as hyper sees it.
//!
//! A process may answer and close before it has read the whole request. Writing then fails while the response is
//! still to be read: the rest of the request is discarded instead, and the failure shows when reading ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::client::edits::restore_target;

/// Whether the target of the next request has to be restored.
#[derive(Debug, Clone, Default)]
pub struct EscapedTarget(Arc<AtomicBool>);

/// The socket of one connection to a process.
#[derive(Debug)]
pub struct UpstreamIo {
    stream: TcpStream,
    escaped: EscapedTarget,
    /// A restored request line that is being written.
    line: BytesMut,
    is_broken: bool,
}

impl EscapedTarget {
    /// The next request line contains substitutes.
    pub fn announce(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, AcqRel)
    }
}

impl UpstreamIo {
    /// Wraps `stream`; `escaped` is shared with those who send requests.
    pub fn new(stream: TcpStream, escaped: EscapedTarget) -> Self {
        Self {
            stream,
            escaped,
            line: BytesMut::new(),
            is_broken: false,
        }
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.line.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.line);
            let len = self.line.len();
            let len = ready!(self.tolerate(written, len))?;
            self.line.advance(len);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether `buf` begins with a request line that has to be restored; takes that line if so.
    fn take_line(&mut self, buf: &[u8]) -> Option<usize> {
        if buf.is_empty() || !self.escaped.take() {
            return None;
        }
        let end = buf.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(buf.len(), |end| end + 1);
        self.line.extend_from_slice(&restore_target(&buf[..len]));
        Some(len)
    }

    /// Takes a failed write of `len` bytes for a successful one: a response may be there to be read.
    fn tolerate(
        &mut self,
        written: Poll<io::Result<usize>>,
        len: usize,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Err(error)) if is_closed_by_peer(error) => {
                self.is_broken = true;
                Poll::Ready(Ok(len))
            }
            _ => written,
        }
    }
}

fn is_closed_by_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_line(cx))?;
        if this.is_broken {
            return Poll::Ready(Ok(buf.len()));
        }
        if let Some(len) = this.take_line(buf) {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.tolerate(written, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_line(cx))?;
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if this.is_broken {
            return Poll::Ready(Ok(len));
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if let Some(len) = first.and_then(|first| this.take_line(first)) {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.tolerate(written, len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_line(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_line(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
