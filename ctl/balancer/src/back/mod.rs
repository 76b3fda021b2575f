//! Connections to processes: one [`LocalBackend`] per process and thread, with its pool.

pub mod connect;
pub mod pool;

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Waker};

use slab::Slab;

use crate::{
    core::{backend::Backend, counters::Thread, health::Uptime},
    limits::Limits,
};
use pool::{Link, Pool, Reuse};

/// One process as one thread sees it.
#[derive(Debug)]
pub struct LocalBackend {
    /// The process.
    pub backend: Arc<Backend>,
    /// Idle connections.
    pub pool: Pool,
    thread: Thread,
    /// Requests that wait for its response.
    waiting: RefCell<Slab<Waker>>,
}

/// A request in flight to a process, or an upgraded connection, until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    backend: Rc<LocalBackend>,
    /// Its place among those that are woken when the process is lost.
    place: Option<usize>,
}

/// One connection to a process, owned by the request that uses it.
#[derive(Debug)]
pub struct Connection {
    /// The connection itself.
    pub link: Box<Link>,
    /// The request, as counted.
    pub in_flight: InFlight,
    /// Whether it was idle before.
    pub was_pooled: bool,
}

impl LocalBackend {
    /// Without connections.
    pub fn new(backend: Arc<Backend>, thread: Thread) -> Self {
        Self {
            backend,
            pool: Pool::default(),
            thread,
            waiting: RefCell::default(),
        }
    }

    /// Counts a request; `None` if the process gets no new ones.
    pub fn begin(self: &Rc<Self>) -> Option<InFlight> {
        self.backend.begin(self.thread).then(|| InFlight {
            backend: self.clone(),
            place: None,
        })
    }

    /// An idle connection whose last exchange is complete, if there is one.
    pub fn pooled(&self, now: Uptime, reuse: Reuse, limits: &Limits) -> Option<Box<Link>> {
        self.pool.take(now, reuse, limits)
    }

    /// A new connection.
    ///
    /// # Errors
    /// The process or this machine cannot open one.
    pub async fn connect(&self, limits: &Limits) -> Result<Box<Link>, connect::Error> {
        let stream = connect::connect(self.backend.address, limits).await?;
        self.backend.health.succeeded();
        Ok(Box::new(Link::new(stream)))
    }

    /// Wakes all requests that wait for its response: it is lost.
    pub fn wake_all(&self) {
        self.waiting.borrow_mut().drain().for_each(Waker::wake);
    }

    /// Whether it gets no requests, now and later, so that idle connections are of no use.
    pub fn is_leaving(&self) -> bool {
        self.backend.is_draining() || self.backend.is_lost()
    }
}

impl InFlight {
    /// The process.
    pub fn backend(&self) -> &Rc<LocalBackend> {
        &self.backend
    }

    /// Wakes `waker` when the process is lost.
    pub fn wake_when_lost(&mut self, waker: &Waker) {
        let mut waiting = self.backend.waiting.borrow_mut();
        match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(registered) => registered.clone_from(waker),
            None => self.place = Some(waiting.insert(waker.clone())),
        }
    }

    /// The process has answered: its loss is of no concern any longer.
    pub fn stop_waiting(&mut self) {
        if let Some(place) = self.place.take() {
            self.backend.waiting.borrow_mut().try_remove(place);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stop_waiting();
        self.backend.backend.end(self.backend.thread);
    }
}

impl Connection {
    /// Returns it to the pool: its exchange is complete in both directions.
    pub fn keep(self, now: Uptime, limits: &Limits) {
        let backend = &self.in_flight.backend;
        if !backend.is_leaving() {
            backend.pool.put(self.link, now, limits);
        }
    }
}
