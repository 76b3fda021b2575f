//! Idle connections of one thread to one process.

use std::{cell::RefCell, io, time::Duration};

use rustix::net::{RecvFlags, recv};
use tokio::{io::Interest, net::TcpStream};

use crate::{core::health::Uptime, limits::Limits, worker::buffers::Inbox};

/// Which idle connections a request may be sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any: if the process closes it meanwhile, the request is sent again.
    Any,
    /// Only one that the process is not about to close, as far as can be known: it has carried several requests
    /// or has stayed open for [`SETTLED_AFTER`], and has been idle for less than `--upstream-reuse-timeout`.
    Settled,
}

/// A process that closes connections after each response has closed by now.
pub const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// One open connection.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub stream: TcpStream,
    /// What the process has sent.
    pub inbox: Inbox,
    /// Whether it has carried more than one request, with the present one.
    pub is_reused: bool,
}

/// Idle connections, the most recently used last.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    since: Uptime,
}

impl Link {
    /// A new connection.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            is_reused: false,
        }
    }

    /// Whether nothing has arrived since the last response, neither bytes nor the end, as far as the runtime knows.
    fn is_quiet(&self) -> bool {
        let looked = self
            .stream
            .try_io(Interest::READABLE, || self.peek().map_err(Into::into));
        matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, as the kernel knows.
    fn is_quiet_now(&self) -> bool {
        self.peek() == Err(rustix::io::Errno::WOULDBLOCK)
    }

    fn peek(&self) -> rustix::io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut [0_u8; 1], flags).map(|(len, _)| len)
    }
}

impl Idle {
    fn is_settled(&self, now: Uptime, limits: &Limits) -> bool {
        let idle = now.saturating_sub(self.since);
        idle < limits.upstream_reuse_timeout && (self.link.is_reused || idle >= SETTLED_AFTER)
    }
}

impl Pool {
    /// An idle connection that is open as far as is known.
    pub fn take(&self, now: Uptime, reuse: Reuse, limits: &Limits) -> Option<Box<Link>> {
        let mut all = self.idle.borrow_mut();
        for place in (0..all.len()).rev() {
            let idle = &all[place];
            if now.saturating_sub(idle.since) >= limits.upstream_idle_timeout {
                // The ones below are older.
                all.drain(..=place);
                return None;
            }
            let is_quiet = match reuse {
                Reuse::Any => idle.link.is_quiet(),
                Reuse::Settled => idle.link.is_quiet_now(),
            };
            if !is_quiet {
                all.remove(place);
            } else if reuse == Reuse::Any || idle.is_settled(now, limits) {
                let mut link = all.remove(place).link;
                link.is_reused = true;
                return Some(link);
            }
        }
        None
    }

    /// Adds a connection whose exchange is complete.
    pub fn put(&self, link: Box<Link>, now: Uptime, limits: &Limits) {
        let mut all = self.idle.borrow_mut();
        if all.len() < limits.upstream_idle {
            all.push(Idle { link, since: now });
        }
    }

    /// Closes connections that have been idle for `timeout`, and those that the process has closed.
    pub fn reap(&self, now: Uptime, timeout: Duration) {
        let mut all = self.idle.borrow_mut();
        all.retain(|idle| now.saturating_sub(idle.since) < timeout && idle.link.is_quiet());
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
