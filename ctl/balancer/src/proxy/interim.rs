//! Interim responses (1xx): forwarded from a process to an HTTP/1.1 client, within a limit.

use crate::{
    core::retry::Failure,
    http1::{edit::write_interim, response::ResponseParser},
};

/// The interim responses to one request.
#[derive(Debug)]
pub struct Interim {
    /// The client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
    left: usize,
}

const CONTINUE: u16 = 100;

impl Interim {
    /// To a request that waits for `100 Continue` or not; a process may send `count_max` of them.
    pub fn new(expects_continue: bool, count_max: usize) -> Self {
        Self {
            awaits_continue: expects_continue,
            left: count_max,
        }
    }

    /// Whether the client still waits for `100 Continue`.
    pub fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// Asks the client for its body, if it waits to be asked.
    pub fn write_continue(&mut self, to: &mut Vec<u8>) {
        if std::mem::take(&mut self.awaits_continue) {
            to.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Appends the response that `parser` has found in `head`. HTTP/1.0 knows none.
    ///
    /// # Errors
    /// There are too many.
    pub fn forward(
        &mut self,
        head: &[u8],
        parser: &ResponseParser,
        is_http_11: bool,
        to: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.left = self.left.checked_sub(1).ok_or(Failure::TooManyInterim)?;
        match parser.line().status {
            CONTINUE => self.write_continue(to),
            _ if is_http_11 => write_interim(head, parser, to),
            _ => {}
        }
        Ok(())
    }
}
