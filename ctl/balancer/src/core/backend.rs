//! One process, as all threads see it.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use tucano_api::ids::{NodeName, ProcessId};

use super::{
    counters::{PerThread, Thread},
    health::Health,
};

/// One process, for as long as the route table contains it.
#[derive(Debug)]
pub struct Backend {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it accepts connections, as observed by requests.
    pub health: Health,
    is_lost: AtomicBool,
    is_draining: AtomicBool,
    /// Requests in flight to it, of each thread.
    in_flight: PerThread<AtomicUsize>,
}

impl Backend {
    /// A process without history, for so many threads.
    pub fn new(process: ProcessId, node: NodeName, address: SocketAddr, threads: usize) -> Self {
        Self {
            process,
            node,
            address,
            health: Health::default(),
            is_lost: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            in_flight: PerThread::new(threads),
        }
    }

    /// Counts a request of `thread`. Returns false, and counts nothing, if the process gets no new ones.
    pub fn begin(&self, thread: Thread) -> bool {
        let in_flight = self.in_flight.of(thread);
        in_flight.fetch_add(1, SeqCst);
        // The request is counted before the mark is read, so either it sees the mark or those who see the mark count it.
        let is_taken = !self.is_draining() && !self.is_lost();
        if !is_taken {
            in_flight.fetch_sub(1, SeqCst);
        }
        is_taken
    }

    /// A request of `thread` has ended.
    pub fn end(&self, thread: Thread) {
        self.in_flight.of(thread).fetch_sub(1, SeqCst);
    }

    /// Whether the process gets new requests from now on. Must be called once the table that says so is in force.
    pub fn set_draining(&self, draining: bool) {
        self.is_draining.store(draining, SeqCst);
    }

    /// Whether the process gets no new requests.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(SeqCst)
    }

    /// Whether it drains and has nothing in flight, and so never will.
    pub fn is_drained(&self) -> bool {
        self.is_draining() && !self.is_used()
    }

    /// Whether a request is in flight to it.
    pub fn is_used(&self) -> bool {
        self.in_flight
            .iter()
            .any(|requests| requests.load(SeqCst) > 0)
    }

    /// The route table no longer contains the process: requests stop waiting for its response once their threads are told.
    pub fn mark_lost(&self) {
        self.is_lost.store(true, SeqCst);
    }

    /// Whether the route table no longer contains the process.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(SeqCst)
    }
}
