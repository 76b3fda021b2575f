//! One request from its head to the end of its response.
//!
//! [`request`] is what processes receive; [`forward`] chooses one and repeats [`attempt`]s, which send it ([`upload`]) until
//! a response begins, with [`interim`] ones before it; [`download`] sends that to the client; [`tunnel`] is what follows an
//! upgrade. All of it happens in the task of the client's connection.

pub mod attempt;
pub mod download;
pub mod forward;
pub mod interim;
pub mod request;
pub mod tunnel;
pub mod upload;

use std::{pin::Pin, rc::Rc};

use tokio::time::{Instant, timeout};

use crate::{
    core::{
        health::uptime_at,
        refusal::{Recipient, Refusal},
    },
    front::client::{Client, Gone},
    http1::{
        body::{Incoming, Length, Outgoing},
        edit::{Framing, Persistence, ResponseEdit},
        fields::Kind,
        response::ResponseParser,
    },
    metrics::Counted,
    worker::{Parsers, Worker, local::LocalService},
};
use download::Download;
use forward::{Answer, Forwarder};
use request::{Refused, Request};

/// What becomes of a client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next request.
    Next,
    /// It is closed; the client may still be sending.
    Linger,
    /// It is closed at once: the client must not take what it has for a whole response, or is gone.
    Drop,
}

impl From<Gone> for Then {
    fn from(_: Gone) -> Self {
        Self::Drop
    }
}

const SWITCHING_PROTOCOLS: u16 = 101;
const NO_CONTENT: u16 = 204;
const UPGRADE_REQUIRED: u16 = 426;

/// Answers the request whose head `parsers` has found in the first `head_len` bytes of the client's, with a process's
/// response or with the reason why there is none.
pub async fn answer(
    worker: &Worker,
    client: &mut Client,
    parsers: &mut Parsers,
    head_len: usize,
) -> Then {
    let mut request = match Request::take(worker, client, parsers, head_len) {
        Ok(request) => request,
        Err(refused) => return refuse(worker, client, refused).await,
    };
    let then = match find_service(worker, client, &request).await {
        Ok(service) => forward(worker, client, &mut request, &mut parsers.response, service).await,
        Err(refusal) => {
            let keeps_open = request.keeps_open && request.body.is_ended();
            let refused = Refused {
                refusal,
                recipient: request.recipient,
                keeps_open,
            };
            refuse(worker, client, Box::new(refused)).await
        }
    };
    worker.reuse_request(request);
    then
}

/// Tells the client why its request, which no service has got, is refused.
pub async fn refuse(worker: &Worker, client: &mut Client, refused: Box<Refused>) -> Then {
    worker.plane.clients.of(worker.thread).refused.increase();
    say(worker, client, refused).await
}

/// Boxed, so that other requests cost less memory.
fn say<'a>(
    worker: &'a Worker,
    client: &'a mut Client,
    refused: Box<Refused>,
) -> Pin<Box<impl Future<Output = Then> + use<'a>>> {
    Box::pin(write(worker, client, refused))
}

async fn write(worker: &Worker, client: &mut Client, refused: Box<Refused>) -> Then {
    let Refused {
        refusal,
        recipient,
        keeps_open,
    } = *refused;
    let keeps_open = keeps_open && !refusal.closes();
    let persistence = persistence(client, recipient, keeps_open);
    refusal.write(&mut client.out, recipient, persistence, &worker.date());
    let flushed = client.flush(worker).await;
    client.now = Instant::now();
    match flushed {
        Ok(()) => then(persistence),
        Err(gone) => gone.into(),
    }
}

fn then(persistence: Persistence) -> Then {
    match persistence {
        Persistence::Close => Then::Linger,
        Persistence::Open | Persistence::KeepAlive => Then::Next,
    }
}

/// What the client is told about its connection, which may stay open or not.
fn persistence(client: &Client, recipient: Recipient, keeps_open: bool) -> Persistence {
    let closes = !keeps_open || client.state.is_stopping() || client.state.is_recycled();
    match (closes, recipient.is_http_11) {
        (true, _) => Persistence::Close,
        (false, true) => Persistence::Open,
        (false, false) => Persistence::KeepAlive,
    }
}

async fn find_service(
    worker: &Worker,
    client: &mut Client,
    request: &Request,
) -> Result<Rc<LocalService>, Refusal> {
    if !worker.has_routes() {
        Box::pin(wait_for_routes(worker, client)).await?;
        client.now = Instant::now();
    }
    match worker.find(request.host(), request.path()) {
        Some(service) => Ok(service),
        None if !worker.has_routes() => Err(Refusal::NoRoutes),
        None => {
            let host = String::from_utf8_lossy(request.host());
            Err(Refusal::UnknownService(host.to_ascii_lowercase()))
        }
    }
}

/// A balancer that has just started has no routes for a moment.
async fn wait_for_routes(worker: &Worker, client: &Client) -> Result<(), Refusal> {
    let plane = &worker.plane;
    let mut changes = plane.changes();
    let Ok(_waiter) = plane.waiting.enter(plane.limits.head_len(), &plane.limits) else {
        return Err(Refusal::NoRoutes);
    };
    let has_routes =
        async { while plane.table().version().is_none() && changes.changed().await.is_ok() {} };
    // What is answered without routes is decided by the caller.
    timeout(plane.limits.routes_timeout, has_routes).await.ok();
    match client.is_gone() {
        true => Err(Refusal::ClientGone),
        false => Ok(()),
    }
}

async fn forward(
    worker: &Worker,
    client: &mut Client,
    request: &mut Request,
    parser: &mut ResponseParser,
    service: Rc<LocalService>,
) -> Then {
    let counted = Counted::request(&service);
    let answered = Forwarder::new(worker, client, request, parser, service.clone())
        .run()
        .await;
    let Answer {
        head_len,
        sent,
        mut connection,
    } = match answered {
        Ok(answer) => answer,
        Err(Some(refusal)) => {
            drop(counted);
            return fail(worker, client, request, &service, refusal).await;
        }
        Err(None) => return Then::Drop,
    };
    let head = &connection.link.inbox.bytes()[..head_len];
    let is_sent = sent.is_complete(request);
    let reply = match Reply::begin(worker, client, request, parser, head, is_sent) {
        Ok(reply) => reply,
        Err(Invalid) => {
            let refusal = Refusal::InvalidResponse(service.service.name.clone());
            drop((connection, counted));
            return fail(worker, client, request, &service, refusal).await;
        }
    };
    service.counters().answered(parser.line().status);
    connection.link.inbox.consume(head_len);
    if reply.is_switch {
        drop(counted);
        let _counted = Counted::tunnel(&service);
        let _open = worker.plane.tunnels.token();
        let relayed = tunnel::relay(worker, client, &mut connection.link);
        // Whichever way it ends, nothing of it is HTTP.
        Box::pin(relayed).await.ok();
        return Then::Drop;
    }
    let mut download = Download {
        worker,
        client,
        request,
        sent,
        link: &mut connection.link,
        incoming: reply.incoming,
        outgoing: reply.outgoing,
        is_finished: reply.has_no_body,
        counted: Some(counted),
    };
    let is_request_sent = match download.run().await {
        Ok(is_sent) => is_sent,
        Err(gone) => return gone.into(),
    };
    client.now = Instant::now();
    // Without the rest of the request, or with more than the response, the connection cannot be reused.
    connection.link.inbox.release(&worker.buffers);
    if reply.keeps_link && is_request_sent && connection.link.inbox.is_empty() {
        let now = uptime_at(client.now.into_std());
        connection.keep(now, &worker.plane.limits);
    }
    then(reply.persistence)
}

/// Tells the client why no process has answered its request.
fn fail<'a>(
    worker: &'a Worker,
    client: &'a mut Client,
    request: &Request,
    service: &LocalService,
    refusal: Refusal,
) -> Pin<Box<impl Future<Output = Then> + use<'a>>> {
    service.counters().answered(refusal.status());
    let refused = Refused {
        refusal,
        recipient: request.recipient,
        keeps_open: request.keeps_open && request.body.is_ended(),
    };
    say(worker, client, Box::new(refused))
}

/// A process's response whose head is on its way to the client.
struct Reply {
    incoming: Incoming,
    outgoing: Outgoing,
    has_no_body: bool,
    persistence: Persistence,
    /// Whether the connection to the process may carry another request.
    keeps_link: bool,
    /// Whether the protocol is switched.
    is_switch: bool,
}

/// The process has switched to a protocol that nobody asked for.
struct Invalid;

impl Reply {
    /// Writes the head that `parser` has found.
    fn begin(
        worker: &Worker,
        client: &mut Client,
        request: &Request,
        parser: &ResponseParser,
        head: &[u8],
        is_sent: bool,
    ) -> Result<Self, Invalid> {
        let (line, recipient) = (parser.line(), request.recipient);
        let length = parser.length(recipient.is_head);
        let is_switch = line.status == SWITCHING_PROTOCOLS;
        let protocol = parser.value(head, Kind::Upgrade);
        let upgrade = match line.status {
            SWITCHING_PROTOCOLS => {
                let asked = request.upgrade.as_deref().ok_or(Invalid)?;
                Some(protocol.unwrap_or(asked))
            }
            // It must name the required protocol (RFC 9110, section 15.5.22).
            UPGRADE_REQUIRED => protocol,
            _ => None,
        };
        let framing = framing(parser, length, recipient.is_http_11);
        let has_end = framing != Framing::Silent || length == Length::None;
        let keeps_open = request.keeps_open && is_sent && has_end;
        let persistence = match is_switch {
            true => Persistence::Open,
            false => persistence(client, recipient, keeps_open),
        };
        if client.out.capacity() == 0 {
            client.out = worker.buffers.text();
        }
        let edit = ResponseEdit {
            head,
            parser,
            is_http_11: recipient.is_http_11,
            framing,
            connection: persistence,
            upgrade,
            date: &worker.date(),
        };
        edit.write(&mut client.out);
        let limits = &worker.plane.limits;
        Ok(Self {
            incoming: Incoming::new(length, limits.head_len(), limits.max_headers),
            outgoing: match framing {
                Framing::Chunked => Outgoing::Chunked,
                _ => Outgoing::Plain,
            },
            has_no_body: length == Length::None,
            persistence,
            keeps_link: parser.options().keeps_open(line.is_http_11)
                && length != Length::UntilClose,
            is_switch,
        })
    }
}

/// How the client is told where the response ends.
fn framing(parser: &ResponseParser, length: Length, is_http_11: bool) -> Framing {
    match (parser.line().status, length) {
        (..=199 | NO_CONTENT, _) => Framing::Silent,
        (_, Length::None) => {
            let stated = parser.content_length();
            stated.map_or(Framing::Silent, Framing::Sized)
        }
        (_, Length::Sized(len)) => Framing::Sized(len),
        _ if is_http_11 => Framing::Chunked,
        _ => Framing::Silent,
    }
}
