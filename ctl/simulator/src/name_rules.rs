//! What the validator checks of services' addresses and of what the nodes are told about services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use tucano_api::ids::{NodeName, ServiceName};
use tucano_planner::{Action, Cluster, NamesUpdate};

/// An address's owner: a service, or a slot of it.
type Owner = (ServiceName, Option<u32>);

/// Two services never have one address, an address never changes, and nodes are told what is.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameRules {
    addresses: BTreeMap<Owner, Ipv4Addr>,
    /// What the nodes were told since the controller's start.
    told: NamesUpdate,
    /// The services that any revision has needed. A revision is forgotten before its last process has ended.
    needed: BTreeSet<ServiceName>,
}

impl NameRules {
    /// The controller has started: nodes are told everything again.
    pub(crate) fn restored(&mut self) {
        self.told = NamesUpdate::default();
    }

    /// Checks a step; `complete` if all of its actions were carried out and the routes are not withheld.
    pub(crate) fn check(&mut self, actions: &[Action], cluster: &Cluster, complete: bool) {
        let present = addresses(cluster);
        let distinct: BTreeSet<&Ipv4Addr> = present.values().collect();
        assert_eq!(distinct.len(), present.len(), "{present:?}");
        let subnet = cluster.settings().service_subnet;
        for (owner, ip) in &present {
            assert!(subnet.contains(*ip), "{owner:?} has {ip}");
            let before = self.addresses.get(owner).filter(|ip| subnet.contains(**ip));
            assert!(before.is_none_or(|before| before == ip), "{owner:?}");
        }
        self.addresses = present;
        self.needed.extend(needs_of_all(cluster));
        for action in actions {
            if let Action::Names(update) = action {
                tell(&mut self.told, update.clone());
            }
        }
        if complete {
            assert_eq!(self.told, cluster.names(), "the nodes know");
            check_needs(cluster, &self.needed);
        }
    }
}

/// A node gets the services that its processes need, and no others.
fn check_needs(cluster: &Cluster, ever: &BTreeSet<ServiceName>) {
    let names = cluster.names();
    for node in cluster.nodes() {
        let set = cluster.desired_set(&node.name).unwrap();
        let needed: BTreeSet<ServiceName> = set
            .processes
            .iter()
            .flat_map(|process| process.config.needs.iter().cloned())
            .collect();
        let told = names.needs.get(&node.name).cloned().unwrap_or_default();
        assert!(needed.is_subset(&told), "{}: {needed:?}", node.name);
        assert!(told.is_subset(ever), "{}: {told:?}", node.name);
    }
}

fn needs_of_all(cluster: &Cluster) -> BTreeSet<ServiceName> {
    let services = cluster.snapshot().services;
    let revisions = services.into_iter().flat_map(|service| service.revisions);
    revisions.flat_map(|it| it.config.needs).collect()
}

fn addresses(cluster: &Cluster) -> BTreeMap<Owner, Ipv4Addr> {
    let mut all = BTreeMap::new();
    for service in cluster.snapshot().services {
        let own = service.address.map(|ip| ((service.name.clone(), None), ip));
        all.extend(own);
        let slots = service.slot_addresses.into_iter();
        all.extend(slots.map(|(slot, ip)| ((service.name.clone(), Some(slot)), ip)));
    }
    all
}

fn tell(told: &mut NamesUpdate, update: NamesUpdate) {
    for (name, entry) in update.services {
        match entry {
            Some(entry) => told.services.insert(name, Some(entry)),
            None => told.services.remove(&name),
        };
    }
    for (node, needs) in update.needs {
        set_needs(&mut told.needs, node, needs);
    }
}

fn set_needs(
    all: &mut BTreeMap<NodeName, BTreeSet<ServiceName>>,
    node: NodeName,
    needs: BTreeSet<ServiceName>,
) {
    match needs.is_empty() {
        true => all.remove(&node),
        false => all.insert(node, needs),
    };
}
