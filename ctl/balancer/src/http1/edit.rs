//! Heads as the other side receives them (RFC 9110, section 7.6; RFC 9112, section 9).
//!
//! What concerns one connection only is left out, and the framing is written anew. Lines that need no change are copied,
//! neighbours together.

use super::{
    body::Length,
    date::DATE_LEN,
    fields::{Field, Kind, Span, write_decimal, write_line},
    options::Options,
    request::RequestParser,
    response::ResponseParser,
};
use crate::core::target::Target;

/// A client's request as processes receive it.
#[derive(Debug)]
pub struct RequestEdit<'a> {
    /// The client's head.
    pub head: &'a [u8],
    /// What was found in it.
    pub parser: &'a RequestParser,
    /// What its `Connection` and `TE` say.
    pub options: &'a Options,
    /// What it asks for.
    pub target: &'a Target<'a>,
    /// The client's address.
    pub client: &'a [u8],
    /// Whether the client's own `X-Forwarded-*` headers are trusted.
    pub trust: bool,
    /// The protocol that the client wants to upgrade to.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Parts of the head that was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// The target.
    pub target: Span,
    /// The host, without port and final dot.
    pub host: Span,
}

/// A process's response as the client receives it.
#[derive(Debug)]
pub struct ResponseEdit<'a> {
    /// The process's head.
    pub head: &'a [u8],
    /// What was found in it.
    pub parser: &'a ResponseParser,
    /// Whether the client speaks HTTP/1.1, not 1.0.
    pub is_http_11: bool,
    /// How the client learns where the body ends.
    pub framing: Framing,
    /// What the client is told about its connection.
    pub connection: Persistence,
    /// The protocol that the connection is, or has to be, upgraded to.
    pub upgrade: Option<&'a [u8]>,
    /// Now.
    pub date: &'a [u8; DATE_LEN],
}

/// How the end of a response is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Not at all: there is no body, or it ends with the connection.
    Silent,
    /// By its length, also that of a body that is left out.
    Sized(u64),
    /// By chunks.
    Chunked,
}

/// Whether a client's connection stays open after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It does, as the client expects.
    Open,
    /// It does, which a client that speaks HTTP/1.0 has asked for.
    KeepAlive,
    /// It is closed.
    Close,
}

impl RequestEdit<'_> {
    /// Appends the head to `to`.
    pub fn write(&self, to: &mut Vec<u8>) -> Written {
        let method = self.parser.line().method.of(self.head);
        to.extend_from_slice(method);
        to.push(b' ');
        let target = append(to, &[self.target.slash(), self.target.origin_form]);
        to.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        let host = append(to, &[self.target.host_header]);
        to.extend_from_slice(b"\r\n");
        let stated = self.write_fields(to);
        self.write_forwarded(stated, to);
        self.write_connection(to);
        if self.expects_continue {
            to.extend_from_slice(b"expect: 100-continue\r\n");
        }
        write_length(self.parser.length(), to);
        to.extend_from_slice(b"\r\n");
        // `Host` begins with it.
        let host = Span::new(host.start(), host.start() + self.target.host.len());
        Written { target, host }
    }

    fn write_fields(&self, to: &mut Vec<u8>) -> Stated {
        let mut stated = Stated::default();
        let mut lines = Lines::new(self.head);
        for field in self.parser.fields() {
            let is_forwarded = match field.kind {
                Kind::Other | Kind::Date | Kind::Head => true,
                Kind::ForwardedProto | Kind::ForwardedHost | Kind::ForwardedOther => self.trust,
                _ => false,
            };
            if is_forwarded && !self.options.names(self.head, field.name.of(self.head)) {
                stated.proto |= field.kind == Kind::ForwardedProto;
                stated.host |= field.kind == Kind::ForwardedHost;
                lines.add(field, to);
            }
        }
        lines.end(to);
        stated
    }

    /// The client's address, appended to the trusted chain if there is one; then what a trusted proxy has not stated.
    fn write_forwarded(&self, stated: Stated, to: &mut Vec<u8>) {
        to.extend_from_slice(b"x-forwarded-for: ");
        if self.trust && !self.options.names(self.head, b"x-forwarded-for") {
            let fields = self.parser.fields().iter();
            for earlier in fields.filter(|field| field.kind == Kind::ForwardedFor) {
                to.extend_from_slice(earlier.value.of(self.head));
                to.extend_from_slice(b", ");
            }
        }
        to.extend_from_slice(self.client);
        to.extend_from_slice(b"\r\n");
        if !stated.proto {
            to.extend_from_slice(b"x-forwarded-proto: http\r\n");
        }
        if !stated.host {
            write_line(to, b"x-forwarded-host", self.target.host_header);
        }
    }

    /// A sender of `TE` names it in `Connection` (RFC 9110, section 10.1.4).
    fn write_connection(&self, to: &mut Vec<u8>) {
        if self.options.trailers {
            to.extend_from_slice(b"te: trailers\r\n");
        }
        match (self.upgrade, self.options.trailers) {
            (Some(_), true) => write_line(to, b"connection", b"te, upgrade"),
            (Some(_), false) => write_line(to, b"connection", b"upgrade"),
            (None, true) => write_line(to, b"connection", b"te"),
            (None, false) => {}
        }
        if let Some(protocol) = self.upgrade {
            write_line(to, b"upgrade", protocol);
        }
    }
}

/// What a trusted proxy has stated itself.
#[derive(Debug, Clone, Copy, Default)]
struct Stated {
    proto: bool,
    host: bool,
}

impl ResponseEdit<'_> {
    /// Appends the head to `to`.
    pub fn write(&self, to: &mut Vec<u8>) {
        let has_date = self.write_line_and_fields(self.is_http_11, to);
        if !has_date {
            write_line(to, b"date", self.date);
        }
        match self.framing {
            Framing::Silent => {}
            Framing::Sized(len) => write_length(Length::Sized(len), to),
            Framing::Chunked => write_length(Length::Chunked, to),
        }
        match (self.upgrade, self.connection) {
            (Some(_), Persistence::Close) => write_line(to, b"connection", b"upgrade, close"),
            (Some(_), _) => write_line(to, b"connection", b"upgrade"),
            (None, persistence) => to.extend_from_slice(persistence.line()),
        }
        if let Some(protocol) = self.upgrade {
            write_line(to, b"upgrade", protocol);
        }
        to.extend_from_slice(b"\r\n");
    }

    /// Returns whether there is a date.
    fn write_line_and_fields(&self, is_http_11: bool, to: &mut Vec<u8>) -> bool {
        let line = self.parser.line();
        write_status(to, is_http_11, line.status, line.reason.of(self.head));
        write_fields(self.head, self.parser, to)
    }
}

/// Appends an interim response, as the process sent it without what concerns its connection only.
pub fn write_interim(head: &[u8], parser: &ResponseParser, to: &mut Vec<u8>) {
    let line = parser.line();
    write_status(to, true, line.status, line.reason.of(head));
    write_fields(head, parser, to);
    to.extend_from_slice(b"\r\n");
}

/// Appends the first line of a response.
pub fn write_status(to: &mut Vec<u8>, is_http_11: bool, status: u16, reason: &[u8]) {
    to.extend_from_slice(match is_http_11 {
        true => b"HTTP/1.1 ",
        false => b"HTTP/1.0 ",
    });
    write_decimal(to, u64::from(status));
    for part in [b" ", reason, b"\r\n"] {
        to.extend_from_slice(part);
    }
}

impl Persistence {
    /// The header that says so, with its end.
    pub fn line(self) -> &'static [u8] {
        match self {
            Self::Open => b"",
            Self::KeepAlive => b"connection: keep-alive\r\n",
            Self::Close => b"connection: close\r\n",
        }
    }
}

fn write_fields(head: &[u8], parser: &ResponseParser, to: &mut Vec<u8>) -> bool {
    let mut lines = Lines::new(head);
    let mut has_date = false;
    for field in parser.fields() {
        let is_forwarded = !matches!(
            field.kind,
            Kind::ContentLength
                | Kind::TransferEncoding
                | Kind::Connection
                | Kind::HopByHop
                | Kind::Te
                | Kind::Upgrade
        );
        if is_forwarded && !parser.options().names(head, field.name.of(head)) {
            has_date |= field.kind == Kind::Date;
            lines.add(field, to);
        }
    }
    lines.end(to);
    has_date
}

fn write_length(length: Length, to: &mut Vec<u8>) {
    match length {
        Length::None | Length::UntilClose => {}
        Length::Chunked => write_line(to, b"transfer-encoding", b"chunked"),
        Length::Sized(len) => {
            to.extend_from_slice(b"content-length: ");
            write_decimal(to, len);
            to.extend_from_slice(b"\r\n");
        }
    }
}

fn append(to: &mut Vec<u8>, parts: &[&[u8]]) -> Span {
    let start = to.len();
    for part in parts {
        to.extend_from_slice(part);
    }
    Span::new(start, to.len())
}

/// Lines on their way: those that follow each other in the head are copied together.
struct Lines<'a> {
    head: &'a [u8],
    run: Option<Span>,
}

impl<'a> Lines<'a> {
    fn new(head: &'a [u8]) -> Self {
        Self { head, run: None }
    }

    fn add(&mut self, field: &Field, to: &mut Vec<u8>) {
        match (field.plain, self.run) {
            (Some(line), Some(run)) if run.end() == line.start() => {
                self.run = Some(Span::new(run.start(), line.end()));
            }
            (Some(line), _) => {
                self.end(to);
                self.run = Some(line);
            }
            (None, _) => {
                self.end(to);
                field.write(self.head, to);
            }
        }
    }

    fn end(&mut self, to: &mut Vec<u8>) {
        if let Some(run) = self.run.take() {
            to.extend_from_slice(run.of(self.head));
        }
    }
}
