//! Bounds the connections of clients other than the controller: beyond the limit, the oldest one is closed. They cannot lock
//! out the controller, nor use up the agent's descriptors.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    /// What evicts each one, oldest first.
    open: VecDeque<oneshot::Sender<()>>,
    is_full: bool,
}

impl Connections {
    /// At most `most` at the same time.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: VecDeque::new(),
            is_full: false,
        }
    }

    /// Admits a connection that is never closed for another.
    pub(super) fn reserved<S>(stream: S) -> Evictable<S> {
        Evictable {
            stream,
            evicted: None,
        }
    }

    /// Admits a connection.
    pub(super) fn admit<S>(&mut self, stream: S) -> Evictable<S> {
        self.open.retain(|one| !one.is_closed());
        let is_full = self.open.len() >= self.most;
        if is_full && let Some(oldest) = self.open.pop_front() {
            oldest.send(()).ok();
        }
        if is_full && !self.is_full {
            let limit = self.most;
            tracing::warn!(
                limit,
                "too many connections (limits.connections): the oldest ones are closed"
            );
        }
        self.is_full = is_full;
        let (evict, evicted) = oneshot::channel();
        self.open.push_back(evict);
        Evictable {
            stream,
            evicted: Some(evicted),
        }
    }
}

/// A stream that fails once it is evicted.
#[derive(Debug)]
pub struct Evictable<S> {
    stream: S,
    evicted: Option<oneshot::Receiver<()>>,
}

impl<S> Evictable<S> {
    /// The stream.
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Wakes the task of this context when the stream is evicted.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(evicted) = &mut self.evicted
            && let Poll::Ready(outcome) = Pin::new(evicted).poll(context)
        {
            self.evicted = None;
            if outcome.is_ok() {
                return Err(io::Error::other("closed for a newer connection"));
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Evictable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Evictable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
