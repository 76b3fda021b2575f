//! A tunnel after an upgrade: copies bytes in both directions until both sides have closed.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, net::TcpStream, time::Instant};

use crate::{
    back::pool::Link,
    front::client::{Client, Gone},
    worker::{
        Worker,
        buffers::{BUFFER_LEN, Inbox},
        timer::Timer,
    },
};

/// One direction of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// The sender has closed; the receiver is told once it has everything.
    Ended,
    Closed,
}

/// Copies until both directions have ended, one fails, or nothing has passed for `--tunnel-idle-timeout`.
///
/// # Errors
/// The tunnel broke.
pub async fn relay(worker: &Worker, client: &mut Client, link: &mut Link) -> Result<(), Gone> {
    let timeout = worker.plane.limits.tunnel_idle_timeout;
    let (mut up, mut down) = (Direction::Open, Direction::Open);
    let mut last = Instant::now();
    if client.ended.is_some() {
        up = Direction::Ended;
    }
    client.flush(worker).await?;
    let mut timer = Timer::default();
    poll_fn(|cx| {
        let (stream, process) = (&mut client.stream, &mut link.stream);
        let moved = up.poll(cx, worker, stream, &mut client.inbox, process)?
            | down.poll(cx, worker, process, &mut link.inbox, stream)?;
        if up == Direction::Closed && down == Direction::Closed {
            return Poll::Ready(Ok(()));
        }
        if moved {
            last = Instant::now();
        }
        ready!(timer.poll(cx, last + timeout));
        Poll::Ready(Err(Gone))
    })
    .await
}

impl Direction {
    /// Moves what there is. Returns whether that was anything.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        from: &mut TcpStream,
        inbox: &mut Inbox,
        to: &mut TcpStream,
    ) -> io::Result<bool> {
        let mut moved = false;
        while *self != Self::Closed {
            if !inbox.is_empty() {
                let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, inbox.bytes())? else {
                    break;
                };
                inbox.consume(written);
            } else if *self == Self::Ended {
                // The other direction stays open: some protocols rely on half-closed connections.
                rustix::net::shutdown(&*to, rustix::net::Shutdown::Write)?;
                *self = Self::Closed;
            } else {
                let filled = inbox.poll_fill(cx, from, &worker.buffers, BUFFER_LEN)?;
                match filled {
                    Poll::Pending => break,
                    Poll::Ready(0) => *self = Self::Ended,
                    Poll::Ready(_) => {}
                }
            }
            moved = true;
        }
        Ok(moved)
    }
}
