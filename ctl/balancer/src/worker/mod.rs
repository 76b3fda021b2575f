//! One thread that serves clients, with a runtime, pools and buffers of its own. Nothing on the path of a request is shared
//! between threads but what is only read.

pub mod buffers;
pub mod local;
pub mod threads;
pub mod timer;

use std::{
    cell::{Cell, Ref, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::interval;

use crate::{
    core::{counters::Thread, health::uptime, target::HOST_BYTES_MAX},
    http1::{
        date::{DATE_LEN, date},
        options::Options,
        request::{HeadLimits, RequestParser},
        response::ResponseParser,
    },
    plane::DataPlane,
    proxy::request::Request,
};
use buffers::Buffers;
use local::{LocalService, LocalTable};

/// How often a thread looks at its pools.
const TICK: Duration = Duration::from_secs(1);

/// Parsers, and requests, that are kept for reuse.
const SPARE_MAX: usize = 64;

/// State of one thread.
#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "a box is moved to a connection and back, not what is in it"
)]
pub struct Worker {
    /// What all threads share.
    pub plane: Arc<DataPlane>,
    /// Which one this is.
    pub thread: Thread,
    /// Memory for reuse.
    pub buffers: Buffers,
    routes: RefCell<Rc<LocalTable>>,
    parsers: RefCell<Vec<Box<Parsers>>>,
    requests: RefCell<Vec<Box<Request>>>,
    /// Now, within a second.
    date: Cell<[u8; DATE_LEN]>,
}

/// Parsers of one connection while it has a request.
#[derive(Debug, Default)]
pub struct Parsers {
    /// Of its requests.
    pub request: RequestParser,
    /// What the request says about its connection.
    pub options: Options,
    /// Of the processes' responses.
    pub response: ResponseParser,
}

impl Worker {
    /// The thread number `thread`.
    pub fn new(plane: Arc<DataPlane>, thread: Thread) -> Rc<Self> {
        let table = LocalTable::new(plane.table().clone(), None, thread);
        Rc::new(Self {
            plane,
            thread,
            buffers: Buffers::default(),
            routes: RefCell::new(Rc::new(table)),
            parsers: RefCell::default(),
            requests: RefCell::default(),
            date: Cell::new(date(SystemTime::now())),
        })
    }

    /// The service of `host`, as it was written without port, and `path`, by the routes in force.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<Rc<LocalService>> {
        let mut lower = [0; HOST_BYTES_MAX];
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.routes().find(lower, path).cloned()
    }

    /// Whether there is a table of routes.
    pub fn has_routes(&self) -> bool {
        self.routes().table().version().is_some()
    }

    /// The limits of a head.
    pub fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            len: self.plane.limits.head_len(),
            headers: self.plane.limits.max_headers,
        }
    }

    /// Now, within a second, for a response without a date.
    pub fn date(&self) -> [u8; DATE_LEN] {
        self.date.get()
    }

    /// Parsers for a connection.
    pub fn parsers(&self) -> Box<Parsers> {
        self.parsers.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes parsers back.
    pub fn reuse_parsers(&self, parsers: Box<Parsers>) {
        let mut all = self.parsers.borrow_mut();
        if all.len() < SPARE_MAX {
            all.push(parsers);
        }
    }

    /// Puts a request into memory of an earlier one.
    pub fn boxed(&self, request: Request) -> Box<Request> {
        match self.requests.borrow_mut().pop() {
            Some(mut spare) => {
                *spare = request;
                spare
            }
            None => Box::new(request),
        }
    }

    /// Takes the memory of a request back.
    pub fn reuse_request(&self, mut request: Box<Request>) {
        self.buffers.reuse_text(std::mem::take(&mut request.head));
        let mut all = self.requests.borrow_mut();
        if all.len() < SPARE_MAX {
            all.push(request);
        }
    }

    /// Takes over new routes as they come, also while there are no requests.
    pub async fn follow_routes(self: Rc<Self>) {
        let mut changes = self.plane.changes();
        loop {
            self.routes();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the date, and closes pooled connections that have been idle for too long, forever.
    pub async fn tick(self: Rc<Self>) {
        let mut ticks = interval(TICK);
        loop {
            ticks.tick().await;
            self.date.set(date(SystemTime::now()));
            let timeout = self.plane.limits.upstream_idle_timeout;
            self.routes().reap(uptime(), timeout);
        }
    }

    /// The routes in force.
    fn routes(&self) -> Ref<'_, LocalTable> {
        let current = self.plane.table();
        if !Arc::ptr_eq(self.routes.borrow().table(), &current) {
            let previous = self.routes.borrow().clone();
            let next = LocalTable::new(current.clone(), Some(&previous), self.thread);
            *self.routes.borrow_mut() = Rc::new(next);
            previous.retire();
        }
        Ref::map(self.routes.borrow(), |routes| &**routes)
    }
}
