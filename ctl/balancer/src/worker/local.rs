//! The routes as one thread sees them: with rotations and pools of its own.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tucano_api::ids::ServiceName;

use crate::{
    back::LocalBackend,
    core::{
        backend::Backend,
        counters::Thread,
        health::Uptime,
        table::{Choice, Service, Table},
    },
    metrics::ServiceCounters,
};

/// One table of routes.
#[derive(Debug)]
pub struct LocalTable {
    table: Arc<Table>,
    /// In the table's order.
    services: Vec<Rc<LocalService>>,
}

/// One service.
#[derive(Debug)]
pub struct LocalService {
    /// What all threads share.
    pub service: Arc<Service>,
    thread: Thread,
    choice: RefCell<Choice>,
    members: Vec<Rc<LocalBackend>>,
}

impl LocalTable {
    /// `table` as `thread` sees it; what `previous` contains too is carried over.
    pub fn new(table: Arc<Table>, previous: Option<&Self>, thread: Thread) -> Self {
        let known = previous.map(Self::backends).unwrap_or_default();
        let names = previous.map(Self::by_name).unwrap_or_default();
        let services = table.services().iter().map(|service| {
            let old = names.get(&service.name).copied();
            Rc::new(LocalService::new(service.clone(), old, &known, thread))
        });
        Self {
            services: services.collect(),
            table,
        }
    }

    /// The table that all threads share.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The service of `host` (lower case, without port) and `path`.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<&Rc<LocalService>> {
        let place = self.table.find(host, path)?;
        self.services.get(place)
    }

    /// Closes connections that the next table has no use for, and wakes requests that wait for a lost process.
    pub fn retire(&self) {
        for backend in self.services.iter().flat_map(|service| &service.members) {
            if backend.is_leaving() {
                backend.pool.clear();
            }
            if backend.backend.is_lost() {
                backend.wake_all();
            }
        }
    }

    /// Closes pooled connections that have been idle for too long.
    pub fn reap(&self, now: Uptime, timeout: Duration) {
        for backend in self.services.iter().flat_map(|service| &service.members) {
            backend.pool.reap(now, timeout);
        }
    }

    fn by_name(&self) -> HashMap<&ServiceName, &Rc<LocalService>> {
        let services = self.services.iter();
        services.map(|it| (&it.service.name, it)).collect()
    }

    fn backends(&self) -> HashMap<*const Backend, Rc<LocalBackend>> {
        let members = self.services.iter().flat_map(|service| &service.members);
        members
            .map(|member| (Arc::as_ptr(&member.backend), member.clone()))
            .collect()
    }
}

impl LocalService {
    fn new(
        service: Arc<Service>,
        old: Option<&Rc<Self>>,
        known: &HashMap<*const Backend, Rc<LocalBackend>>,
        thread: Thread,
    ) -> Self {
        let members = service.backends().map(|backend| {
            let carried = known.get(&Arc::as_ptr(backend)).cloned();
            carried.unwrap_or_else(|| Rc::new(LocalBackend::new(backend.clone(), thread)))
        });
        let previous = old.map(|old| (old.choice.borrow(), &old.service));
        let previous = previous.as_ref();
        let previous = previous.map(|(choice, service)| (&**choice, service.as_ref()));
        Self {
            members: members.collect(),
            choice: RefCell::new(Choice::carried(previous, &service, thread.0)),
            service,
            thread,
        }
    }

    /// The counters that this thread writes.
    pub fn counters(&self) -> &ServiceCounters {
        self.service.stats.of(self.thread)
    }

    /// The next process in rotation; `None` if none is left. `tried` have failed this request already.
    pub fn choose(&self, now: Uptime, tried: &[Arc<Backend>]) -> Option<&Rc<LocalBackend>> {
        let mut choice = self.choice.borrow_mut();
        let place = choice.choose(&self.service, now, tried)?;
        self.members.get(place)
    }
}
