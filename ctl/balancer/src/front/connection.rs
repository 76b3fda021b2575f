//! A client's connection from its first byte to its end.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use super::client::Client;
use crate::{
    core::{
        health::{uptime, uptime_at},
        refusal::Recipient,
    },
    http1::request::Malformed,
    proxy::{self, Then, request::Refused},
    worker::{Parsers, Worker, buffers::BUFFER_LEN},
};

/// A response that was written this long ago has been received.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A client whose next request comes so soon is served without giving memory back meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a connection over the limit of its address is kept for its request, which gets the reason.
const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the client's requests until the connection ends.
pub async fn run(worker: &Worker, client: &mut Client) {
    // Until the next request a connection costs little memory.
    while poll_fn(|cx| client.poll_next(cx, worker)).await {
        match Box::pin(serve(worker, client)).await {
            Then::Next => {}
            Then::Linger => break,
            Then::Drop => return,
        }
    }
    Box::pin(linger(worker, client)).await;
}

/// Answers requests until none has come for a moment.
async fn serve(worker: &Worker, client: &mut Client) -> Then {
    loop {
        let mut parsers = worker.parsers();
        let then = serve_next(worker, client, &mut parsers).await;
        client.state.end(uptime_at(client.now.into_std()));
        worker.reuse_parsers(parsers);
        if then != Then::Next {
            return then;
        }
        if !client.inbox.is_empty() {
            continue;
        }
        client.inbox.release(&worker.buffers);
        let pause = client.now + PAUSE.min(worker.plane.limits.idle_timeout);
        if !poll_fn(|cx| client.poll_begin(cx, worker, pause)).await {
            // Whether the connection is idle or to be closed is found out once more, with less memory.
            return Then::Next;
        }
    }
}

async fn serve_next(worker: &Worker, client: &mut Client, parsers: &mut Parsers) -> Then {
    parsers.request.reset();
    client.now = Instant::now();
    let mut polls = 0;
    let read = poll_fn(|cx| {
        polls += 1;
        client.poll_head(cx, worker, parsers)
    })
    .await;
    if polls > 1 {
        client.now = Instant::now();
    }
    match read {
        Ok(Some(head_len)) => {
            client.state.begin();
            client.has_begun = true;
            proxy::answer(worker, client, parsers, head_len).await
        }
        Ok(None) => Then::Linger,
        Err(malformed) => {
            let recipient = Recipient {
                is_http_11: true,
                is_head: false,
            };
            let refused = Refused {
                refusal: malformed.into(),
                recipient,
                keeps_open: false,
            };
            proxy::refuse(worker, client, Box::new(refused)).await
        }
    }
}

impl Client {
    /// Waits for the first bytes of a request; returns false if the connection is to be closed instead.
    fn poll_next(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<bool> {
        let patience = match self.is_over_limit {
            true => OVER_LIMIT_TIMEOUT,
            false => worker.plane.limits.idle_timeout,
        };
        self.poll_begin(cx, worker, self.now + patience)
    }

    /// Waits for the first bytes of a request; returns false if none come before `deadline`, or if the connection is to be
    /// closed.
    fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        deadline: Instant,
    ) -> Poll<bool> {
        match self.poll_fill(cx, worker, BUFFER_LEN) {
            Poll::Ready(read) => Poll::Ready(matches!(read, Ok(1..))),
            Poll::Pending => self.poll_idle(cx, worker, deadline).map(|()| false),
        }
    }

    /// Completes if the connection is to be closed, although the client may still send a request.
    fn poll_idle(&mut self, cx: &mut Context<'_>, worker: &Worker, deadline: Instant) -> Poll<()> {
        self.state.register(cx.waker());
        if self.state.is_recycled() {
            return Poll::Ready(());
        }
        let mut deadline = deadline;
        if self.state.is_stopping() {
            if self.has_begun {
                return Poll::Ready(());
            }
            // The first request of a connection may be in flight already, and closing now would lose it.
            let patience = worker.plane.limits.first_request_timeout;
            let stopped = *self.stopped.get_or_insert_with(Instant::now);
            deadline = deadline.min(stopped + patience);
        }
        self.timer.poll(cx, deadline)
    }

    /// The length of the next request's head, once it is complete; none if the connection is to be closed instead.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        parsers: &mut Parsers,
    ) -> Poll<Result<Option<usize>, Malformed>> {
        let limits = worker.head_limits();
        loop {
            let parsed = parsers.request.parse(self.inbox.bytes_mut(), limits)?;
            if parsed.is_some() {
                return Poll::Ready(Ok(parsed));
            }
            match self.poll_fill(cx, worker, limits.len + BUFFER_LEN) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending => break,
            }
        }
        let deadline = self.now + worker.plane.limits.head_timeout;
        ready!(self.poll_idle(cx, worker, deadline));
        match Instant::now() >= deadline {
            true => Poll::Ready(Err(Malformed::TooSlow)),
            false => Poll::Ready(Ok(None)),
        }
    }
}

/// Closes the sending direction, then discards what the client still sends until it closes too: a socket that is closed with
/// unread data resets the connection, and the client may then lose the response.
async fn linger(worker: &Worker, client: &mut Client) {
    if rustix::net::shutdown(&client.stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    // Nothing is on its way to a client whose last response is long past.
    let idle = client.state.idle_for(uptime());
    let is_settled = client.state.is_recycled() || idle.is_some_and(|idle| idle >= SETTLED_AFTER);
    if client.ended.is_some() || is_settled {
        return;
    }
    let limits = &worker.plane.limits;
    let mut waste = vec![0; 16 * 1024];
    let discard = async {
        let mut discarded = 0;
        while discarded < limits.linger_len() {
            match client.stream.read(&mut waste).await {
                Ok(len @ 1..) => discarded += len,
                Ok(_) | Err(_) => break,
            }
        }
    };
    timeout(limits.linger_timeout, discard).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn connections_and_requests_cost_little_memory() {
        // What an idle connection has.
        let idle = size(run) + size_of::<Client>();
        assert!(idle <= 512, "{idle}");
        // What comes with a request. Up to this size, memory is allocated fast.
        assert!(size(serve) <= 1024, "{}", size(serve));
    }
}
