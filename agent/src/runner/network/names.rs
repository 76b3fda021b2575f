//! Connects services: takes what the controller sends about them, and puts the rules for it in force.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tucano_api::{
    agent::DesiredProcess,
    ids::ServiceName,
    names::{NamedService, Names, ServiceSubnet},
};

use super::{
    Error, Lease, Network, blocking,
    connections::{self, Ended},
    firewall::Firewall,
    rules::table,
    sockets::{self, Connection},
    watch::{self, Seen},
};

/// How often the rules are looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Network {
    /// Whether this node can connect services. Known after [`Network::tidy`].
    pub fn connects_services(&self) -> bool {
        let firewall = self.firewall.get();
        firewall.is_some_and(Firewall::connects_services) && self.subnet_conflict().is_none()
    }

    /// Takes what has changed of the services; the rules are in force on return.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn learn(&self, names: Names) -> Result<(), Error> {
        self.state().services.learn(names);
        let enforced = self.enforce().await;
        self.names_changed.send_replace(());
        enforced
    }

    /// The services that this node knows, with their endpoints.
    pub fn names(&self) -> Names {
        self.state().services.known()
    }

    /// The version of that, as the controller has it.
    pub fn names_version(&self) -> Option<String> {
        self.state().services.version().map(str::to_owned)
    }

    /// Takes the needs of a process that has this lease; the rules are in force on return.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn set_process(&self, lease: Lease, process: &DesiredProcess) -> Result<(), Error> {
        self.note_process(lease, process);
        self.enforce().await
    }

    /// The same without a change of the rules, at the agent's start.
    pub fn note_process(&self, lease: Lease, process: &DesiredProcess) {
        self.state().services.set_process(lease.ip, process);
        self.needs_changed.send_replace(());
    }

    /// Waits until these services are known, for so long at most.
    ///
    /// # Errors
    /// The services that are not.
    pub async fn until_named(
        &self,
        needs: &[ServiceName],
        limit: Duration,
    ) -> Result<(), Vec<ServiceName>> {
        let mut changes = self.names_changed.subscribe();
        let known = changes.wait_for(|()| self.state().services.unknown(needs).is_empty());
        match tokio::time::timeout(limit, known).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.state().services.unknown(needs)),
        }
    }

    /// Whether any process needs a service.
    pub fn needs_services(&self) -> bool {
        self.state().services.are_needed()
    }

    /// Changes whenever the processes' needs may have changed.
    pub fn needs_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.needs_changed.subscribe()
    }

    /// The services that the process at this address may reach.
    pub fn visible(&self, from: Ipv4Addr) -> Vec<Arc<NamedService>> {
        self.state().services.visible(from)
    }

    /// The network of services' addresses.
    pub fn service_subnet(&self) -> Option<ServiceSubnet> {
        self.state().services.subnet()
    }

    /// The bridge's address, at which processes find their name server.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// Why services are not connected although the firewall could.
    pub(super) fn subnet_conflict(&self) -> Option<String> {
        let services = self.service_subnet()?;
        let own = self.subnet;
        let conflicts = services.overlaps(own.gateway(), own.prefix());
        conflicts.then(|| {
            format!(
                "services' addresses ({services}, `service_subnet` of the controller) and the processes' ({own}, `subnet` in \
                 agent.toml) overlap: services with `needs` are not run here"
            )
        })
    }

    /// How often another program has removed rules that were put back, in words for the report.
    pub fn rules_condition(&self) -> Option<String> {
        let times = self.rules_restored.load(Ordering::Relaxed);
        (times > 0).then(|| {
            format!(
                "another program has removed rules of the processes' network, and they were put back, {times} times since the \
                 agent's start: exempt the table {} from what reloads the firewall",
                table(&self.bridge)
            )
        })
    }

    /// Puts rules back that another program has removed, until the future is dropped.
    pub async fn keep_rules(&self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            ticks.tick().await;
            seen = self.restore_rules(seen).await;
        }
    }

    /// Looks once. What was seen is comparable only while the same rules are in force.
    async fn restore_rules(&self, seen: Option<(u64, Seen)>) -> Option<(u64, Seen)> {
        let in_force = self.in_force.lock().await;
        in_force.as_ref()?;
        if !matches!(self.firewall.get()?, Firewall::Nftables { .. }) {
            return None;
        }
        let replaced = self.rules_replaced.load(Ordering::Relaxed);
        let last = seen.filter(|(of, _)| *of == replaced).map(|(_, seen)| seen);
        let name = table(&self.bridge);
        let look = tokio::task::spawn_blocking(move || {
            if let Err(error) = watch::release_bridges() {
                tracing::warn!(%error, "cannot write bridge-nf-call-iptables");
            }
            watch::look(&name, last)
        });
        let found = look.await.ok()?;
        let is_lost = match (&found, last) {
            (Ok(now), Some(last)) => now.rules != last.rules,
            (Ok(now), None) => now.rules == 0,
            (Err(_), _) => true,
        };
        drop(in_force);
        if !is_lost {
            return Some((replaced, found.ok()?));
        }
        tracing::warn!(bridge = %self.bridge, "another program has removed rules of the processes' network: putting them back");
        if let Err(error) = self.put_back().await {
            tracing::error!(%error, "cannot put the rules back");
            return None;
        }
        self.rules_restored.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// With the last process, nothing is closed any more.
    pub(super) async fn reopen(&self) -> Result<(), Error> {
        let Some(subnet) = self.closed().take() else {
            return Ok(());
        };
        let links = self.links.clone();
        Ok(blocking(move || links.reopen(subnet)).await?)
    }

    fn closed(&self) -> MutexGuard<'_, Option<ServiceSubnet>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_back(&self) -> Result<(), Error> {
        *self.in_force.lock().await = None;
        self.enforce().await
    }

    /// Closes services' addresses beyond the rules, and ends connections whose path or endpoint is gone.
    pub(super) async fn close(&self, closed: Option<ServiceSubnet>, ended: Vec<Ended>) {
        if let Some(subnet) = closed {
            let links = self.links.clone();
            let before = self.closed().replace(subnet).filter(|it| *it != subnet);
            let closing = blocking(move || {
                if let Some(before) = before {
                    links.reopen(before)?;
                }
                links.close(subnet)
            });
            if let Err(error) = closing.await {
                tracing::warn!(%error, "cannot close services' addresses by a route");
            }
        }
        if ended.is_empty() {
            return;
        }
        let ending = tokio::task::spawn_blocking(move || connections::end(&ended)).await;
        let ended = match ending {
            Ok(Ok(connections)) => sockets::end(self.of_networks(connections)).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "cannot end connections to endpoints that are gone");
        }
    }

    /// The connections by the networks of their processes.
    fn of_networks(&self, connections: Vec<Connection>) -> Vec<(Arc<OwnedFd>, Vec<Connection>)> {
        let mut by_process: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for connection in connections {
            let of_process = by_process.entry(*connection.from.ip()).or_default();
            of_process.push(connection);
        }
        let state = self.state();
        let by_process = by_process.into_iter();
        by_process
            .filter_map(|(ip, all)| Some((Arc::clone(state.namespaces.get(&ip)?), all)))
            .collect()
    }
}
