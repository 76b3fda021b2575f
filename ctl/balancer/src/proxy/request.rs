//! One request, as processes receive it.

use super::{interim::Interim, upload::Upload};
use crate::{
    core::{
        refusal::{Recipient, Refusal},
        retry::is_idempotent,
        target::{Target, path},
    },
    front::client::Client,
    http1::{
        body::Length,
        edit::{RequestEdit, Written},
        fields::{Kind, trim_blanks},
        options::{Options, list},
        request::RequestParser,
    },
    worker::{Parsers, Worker},
};

/// A request that can be sent to any process of its service.
#[derive(Debug)]
pub struct Request {
    /// Its head, as it is sent.
    pub head: Vec<u8>,
    /// Its body.
    pub body: Upload,
    /// Interim responses to it.
    pub interim: Interim,
    /// The protocol that the client wants to upgrade to, if it may.
    pub upgrade: Option<Vec<u8>>,
    /// Who gets the response.
    pub recipient: Recipient,
    /// Whether its method is idempotent.
    pub is_idempotent: bool,
    /// Whether the client's connection may carry another one.
    pub keeps_open: bool,
    written: Written,
}

/// A request that no process is to see.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Who gets the response.
    pub recipient: Recipient,
    /// Whether the connection may carry another request.
    pub keeps_open: bool,
}

impl Request {
    /// Reads the request whose head `parsers` has found in the first `len` bytes of `client`'s, and takes it from there.
    ///
    /// # Errors
    /// It is not to be forwarded.
    pub fn take(
        worker: &Worker,
        client: &mut Client,
        parsers: &mut Parsers,
        len: usize,
    ) -> Result<Box<Self>, Box<Refused>> {
        let line = parsers.request.line();
        let recipient = Recipient {
            is_http_11: line.is_http_11,
            is_head: line.method.of(client.inbox.bytes()) == b"HEAD",
        };
        let result = Self::read(worker, client, parsers, len, recipient);
        client.inbox.consume(len);
        result
            .map(|request| worker.boxed(request))
            .map_err(|refusal| {
                Box::new(Refused {
                    refusal,
                    recipient,
                    keeps_open: false,
                })
            })
    }

    fn read(
        worker: &Worker,
        client: &Client,
        parsers: &mut Parsers,
        len: usize,
        recipient: Recipient,
    ) -> Result<Self, Refusal> {
        let Parsers {
            request: parser,
            options,
            ..
        } = parsers;
        let head = &client.inbox.bytes()[..len];
        let line = parser.line();
        let method = line.method.of(head);
        if client.is_over_limit {
            return Err(Refusal::TooManyConnections);
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        let expects_continue = expects_continue(head, parser)?;
        let target = Target::of(head, parser)?;
        options.read(head, parser.fields())?;
        let length = parser.length();
        let has_body = !matches!(length, Length::None | Length::Sized(0));
        let expects_continue = expects_continue && line.is_http_11 && has_body;
        let upgrade = upgrade(head, parser, options).filter(|_| line.is_http_11 && !has_body);
        let mut to = worker.buffers.text();
        let edit = RequestEdit {
            head,
            parser,
            options,
            target: &target,
            client: client.address.as_bytes(),
            trust: worker.plane.trust_forwarded,
            upgrade,
            expects_continue,
        };
        let written = edit.write(&mut to);
        let limits = &worker.plane.limits;
        Ok(Self {
            head: to,
            body: Upload::new(length, limits),
            interim: Interim::new(expects_continue, limits.max_interim_responses),
            upgrade: upgrade.map(<[u8]>::to_vec),
            recipient,
            is_idempotent: is_idempotent(method),
            keeps_open: options.keeps_open(line.is_http_11),
            written,
        })
    }

    /// The host it is for, as it was written without port.
    pub fn host(&self) -> &[u8] {
        self.written.host.of(&self.head)
    }

    /// Its path, without the query.
    pub fn path(&self) -> &[u8] {
        path(self.written.target.of(&self.head))
    }
}

/// Whether the client waits for `100 Continue`.
fn expects_continue(head: &[u8], parser: &RequestParser) -> Result<bool, Refusal> {
    let fields = parser.fields().iter();
    let mut expectations = fields.filter(|field| field.kind == Kind::Expect).peekable();
    let expects = expectations.peek().is_some();
    let is_known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    match expectations.all(|field| is_known(field.value.of(head))) {
        true => Ok(expects),
        false => Err(Refusal::Expectation),
    }
}

/// The protocol that the client wants to upgrade to. h2c is not forwarded: a tunnel is not inspected, so a client could
/// reach any host through it. An upgrade request must have no body, so that the point where the protocol changes is
/// unambiguous.
fn upgrade<'a>(head: &'a [u8], parser: &RequestParser, options: &Options) -> Option<&'a [u8]> {
    if !options.upgrade {
        return None;
    }
    let mut fields = parser.fields().iter();
    let field = fields.find(|field| field.kind == Kind::Upgrade)?;
    let protocol = trim_blanks(field.value.of(head));
    let is_h2 = |name: &[u8]| matches!(name, [b'h' | b'H', b'2', ..]);
    (!protocol.is_empty() && !list(protocol).any(is_h2)).then_some(protocol)
}
