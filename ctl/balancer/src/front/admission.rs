//! Which connections are open: a limit for each client address, and idle ones that make room for others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::state::ConnectionState;
use crate::core::health::uptime;

/// A connection that was accepted or used so recently is not closed to make room: its request may be in flight.
const IDLE_MIN: Duration = Duration::from_millis(500);

/// The open connections.
#[derive(Debug, Default)]
pub struct Admission {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    connections: HashMap<u64, (IpAddr, Arc<ConnectionState>)>,
    by_address: HashMap<IpAddr, usize>,
}

/// An open connection, registered until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    id: u64,
    /// Whether it is within the limit of its client's address.
    pub is_within_limit: bool,
}

impl Admission {
    /// Registers a connection. If its client's address has `limit` of them already, an idle one of those makes
    /// room; if none is idle, this one is over the limit.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        state: Arc<ConnectionState>,
        limit: usize,
    ) -> Admitted {
        let source = source(address);
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        let count = open.by_address.get(&source).copied().unwrap_or(0);
        let is_within_limit = count < limit || open.recycle(|other| *other == source);
        *open.by_address.entry(source).or_default() += 1;
        open.connections.insert(id, (source, state));
        Admitted {
            admission: self.clone(),
            id,
            is_within_limit,
        }
    }

    /// Asks the connection that has been idle for longest to close. Returns whether there is one.
    pub fn recycle(&self) -> bool {
        self.lock().recycle(|_| true)
    }

    /// Asks all connections to close once they are idle.
    pub fn stop_all(&self) {
        let open = self.lock();
        open.connections
            .values()
            .for_each(|(_, state)| state.stop());
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn recycle(&mut self, belongs: impl Fn(&IpAddr) -> bool) -> bool {
        let now = uptime();
        let candidates = self.connections.iter();
        let idle = candidates
            .filter(|(_, (source, state))| belongs(source) && !state.is_recycled())
            .filter_map(|(_, (_, state))| Some((state.idle_for(now)?, state)))
            .filter(|(idle, _)| *idle >= IDLE_MIN)
            .max_by_key(|(idle, _)| *idle);
        match idle {
            Some((_, state)) => {
                state.recycle();
                true
            }
            None => false,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        let Some((source, _)) = open.connections.remove(&self.id) else {
            return;
        };
        if let Some(count) = open.by_address.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&source);
            }
        }
    }
}

/// The address that a limit applies to: of IPv6 the /64, because one host may use all of its addresses.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests;
