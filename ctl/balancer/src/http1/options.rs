//! Lists in the values of `Connection`, `TE` and `Upgrade`.

use super::fields::{Field, Kind, Span, is_token, leading_blanks, trim_blanks};

/// What a message's `Connection` and `TE` say.
#[derive(Debug, Default)]
pub struct Options {
    /// The connection is closed after this message.
    pub close: bool,
    /// It is kept open, in HTTP/1.0.
    pub keep_alive: bool,
    /// It is to be upgraded.
    pub upgrade: bool,
    /// Trailers are accepted.
    pub trailers: bool,
    /// Headers that concern this connection only.
    named: Vec<Span>,
}

/// A `Connection` header that makes the whole message unacceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConnection {
    /// It is not a list of header names.
    #[error("the Connection header is malformed")]
    Malformed,
    /// It names a header that frames or routes the message.
    #[error("the Connection header names {0}, which is not a hop-by-hop header")]
    Names(&'static str),
}

impl Options {
    /// Reads them from the fields of a head.
    ///
    /// # Errors
    /// `Connection` is malformed, or names what is not its to name.
    pub fn read(&mut self, head: &[u8], fields: &[Field]) -> Result<(), BadConnection> {
        self.clear();
        for field in fields {
            match field.kind {
                Kind::Connection => self.connection(head, field.value)?,
                Kind::Te => {
                    self.trailers |= list(field.value.of(head)).any(|it| is(it, "trailers"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the header `name` (lower case) concerns this connection only.
    pub fn names(&self, head: &[u8], name: &[u8]) -> bool {
        let mut named = self.named.iter();
        named.any(|span| span.of(head).eq_ignore_ascii_case(name))
    }

    /// Whether the connection may carry another message.
    pub fn keeps_open(&self, is_http_11: bool) -> bool {
        !self.close && (is_http_11 || self.keep_alive)
    }

    fn clear(&mut self) {
        let mut named = std::mem::take(&mut self.named);
        named.clear();
        *self = Self {
            named,
            ..Self::default()
        };
    }

    fn connection(&mut self, head: &[u8], value: Span) -> Result<(), BadConnection> {
        for option in elements(head, value) {
            match option.of(head) {
                b"" => {}
                it if is(it, "close") => self.close = true,
                it if is(it, "keep-alive") => self.keep_alive = true,
                it if is(it, "upgrade") => self.upgrade = true,
                it if is(it, "te") => {}
                it => {
                    check_name(it)?;
                    self.named.push(option);
                }
            }
        }
        Ok(())
    }
}

fn check_name(option: &[u8]) -> Result<(), BadConnection> {
    if !option.iter().all(|byte| is_token(*byte)) {
        return Err(BadConnection::Malformed);
    }
    let framing = ["host", "content-length", "transfer-encoding"];
    match framing.into_iter().find(|name| is(option, name)) {
        Some(name) => Err(BadConnection::Names(name)),
        None => Ok(()),
    }
}

/// The elements of a comma-separated list, empty ones included.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_blanks)
}

/// The same, as parts of `head`.
fn elements(head: &[u8], value: Span) -> impl Iterator<Item = Span> {
    let mut next = value.start();
    value.of(head).split(|byte| *byte == b',').map(move |text| {
        let start = next + leading_blanks(text);
        next += text.len() + 1;
        Span::new(start, start + trim_blanks(text).len())
    })
}

fn is(option: &[u8], name: &str) -> bool {
    option.eq_ignore_ascii_case(name.as_bytes())
}
