//! The agent's nftables table: forwarding of node ports, source NAT, and the addresses that processes are blocked from.
//! It is rendered completely and replaced atomically by `nft -f -`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{
    addresses::{NodePort, PortRange, Subnet, Transport},
    cidr::Cidr,
    elements::{Change, Element},
    links::hardware_address,
    service_rules,
    services::{ServiceMap, ServiceRules},
};

/// The content of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Name of the bridge.
    pub(super) bridge: String,
    /// Its subnet.
    pub(super) subnet: Subnet,
    /// APIs of the cluster, which processes must not reach.
    pub(super) apis: BTreeSet<SocketAddrV4>,
    /// The node's ports that may be forwarded, which are assumed to be those of all workers.
    pub(super) port_range: PortRange,
    /// Machines of the cluster, whose connections to node ports are forwarded.
    pub(super) machines: BTreeSet<Ipv4Addr>,
    /// Further clients of node ports.
    pub(super) clients: BTreeSet<Cidr>,
    /// Workers, whose node ports processes must not reach. The drop is at the sender: behind its node's address the receiver
    /// cannot tell a process from the node.
    pub(super) workers: BTreeSet<Ipv4Addr>,
    /// Name servers of processes, which are reachable by DNS even where the rest of their address is not.
    pub(super) resolvers: BTreeSet<Ipv4Addr>,
    /// Node port → process.
    pub(super) forwards: BTreeMap<NodePort, SocketAddrV4>,
    /// Addresses that are accepted on the bridge, each from its own hardware address only.
    pub(super) senders: Vec<Ipv4Addr>,
    /// Which services' addresses are open to whom, and where they answer; `None` where services are not connected.
    pub(super) services: Option<ServiceRules>,
}

impl Rules {
    /// Input of `nft -f -`. The table is created before it is deleted, so that the deletion succeeds if it did not exist.
    pub(super) fn render(&self) -> String {
        let (table, bridge, subnet) = (table(&self.bridge), &self.bridge, self.subnet);
        let gateway = subnet.gateway();
        let ports = elements(self.forwards(Transport::Tcp));
        let udp_ports = elements(self.forwards(Transport::Udp));
        let senders = elements(self.senders());
        let apis = elements(self.apis());
        let machines = elements(self.machines());
        let workers = elements(self.workers());
        let resolvers = elements(self.resolvers());
        let range = self.port_range;
        let forward = "fib daddr type local dnat ip to tcp dport map @ports";
        let forward_udp = "fib daddr type local dnat ip to udp dport map @udp_ports";
        let clients = self.clients.iter().flat_map(|client| {
            [forward, forward_udp]
                .map(|rule| format!("    iifname != \"{bridge}\" ip saddr {client} {rule}\n"))
        });
        let clients: String = clients.collect();
        let services = self.services.as_ref();
        let services = services.map(|it| service_rules::parts(it, bridge, subnet));
        let service_rules::Parts {
            own: service_chains,
            translation,
            masquerade,
            forward: service_forward,
        } = services.unwrap_or_default();
        format!(
            r#"table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  map ports {{
    type inet_service : ipv4_addr . inet_service
{ports}  }}
  map udp_ports {{
    type inet_service : ipv4_addr . inet_service
{udp_ports}  }}
  set senders {{
    type ether_addr . ipv4_addr
{senders}  }}
  set apis {{
    type ipv4_addr . inet_service
{apis}  }}
  set machines {{
    type ipv4_addr
{machines}  }}
  set workers {{
    type ipv4_addr
{workers}  }}
  set resolvers {{
    type ipv4_addr
{resolvers}  }}
{service_chains}  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ether saddr . ip saddr != @senders drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{bridge}" ip saddr @machines {forward}
    iifname != "{bridge}" ip saddr @machines {forward_udp}
{clients}{translation}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {forward}
    {forward_udp}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
{masquerade}  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{bridge}" accept
    ct state {{ established, related }} accept
    ip daddr {gateway} meta l4proto icmp accept
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
{service_forward}    iifname "{bridge}" oifname "{bridge}" drop
    iifname "{bridge}" ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{bridge}" ip daddr 169.254.0.0/16 drop
    iifname "{bridge}" ip daddr @workers meta l4proto {{ tcp, udp }} th dport {range} drop
    iifname "{bridge}" ip daddr . tcp dport @apis drop
    oifname "{bridge}" ct state {{ established, related }} accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"#
        )
    }

    /// The changes of elements that turn `before` into these rules, in order; `None` if anything else differs. A replacement of
    /// the table refuses new connections for a moment, which changes of elements do not.
    pub(super) fn changes(&self, before: &Self) -> Option<Vec<Change>> {
        if !self.has_chains_of(before) {
            return None;
        }
        let all = [
            difference(before.all_forwards(), self.all_forwards(), false),
            difference(self.all_forwards(), before.all_forwards(), true),
            difference(before.senders(), self.senders(), false),
            difference(self.senders(), before.senders(), true),
            // New addresses are blocked before old ones are unblocked.
            difference(self.apis(), before.apis(), true),
            difference(before.apis(), self.apis(), false),
            difference(self.workers(), before.workers(), true),
            difference(before.workers(), self.workers(), false),
            difference(self.machines(), before.machines(), true),
            difference(before.machines(), self.machines(), false),
            difference(before.resolvers(), self.resolvers(), false),
            difference(self.resolvers(), before.resolvers(), true),
        ];
        let services = self.services.as_ref().zip(before.services.as_ref());
        let services = services.map(|(own, before)| service_changes(own, before));
        let mut all = all.concat();
        all.extend(services.into_iter().flatten());
        Some(all)
    }

    /// Whether nothing but elements of sets differs.
    fn has_chains_of(&self, other: &Self) -> bool {
        // Without `..`: a field that is missing here does not compile.
        let Self {
            bridge,
            subnet,
            apis: _,
            port_range,
            machines: _,
            clients,
            workers: _,
            resolvers: _,
            forwards: _,
            senders: _,
            services,
        } = self;
        let services_subnet = |it: &Option<ServiceRules>| it.as_ref().map(|it| it.subnet);
        *bridge == other.bridge
            && *subnet == other.subnet
            && *port_range == other.port_range
            && *clients == other.clients
            && services_subnet(services) == services_subnet(&other.services)
    }

    fn forwards(&self, of: Transport) -> impl Iterator<Item = Element> {
        let all = self.all_forwards();
        all.filter(move |it| matches!(it, Element::Forward((transport, _), _) if *transport == of))
    }

    fn all_forwards(&self) -> impl Iterator<Item = Element> {
        let all = self.forwards.iter();
        all.map(|(port, to)| Element::Forward(*port, *to))
    }

    fn senders(&self) -> impl Iterator<Item = Element> {
        self.senders.iter().copied().map(Element::Sender)
    }

    fn apis(&self) -> impl Iterator<Item = Element> {
        self.apis.iter().copied().map(Element::Api)
    }

    fn machines(&self) -> impl Iterator<Item = Element> {
        self.machines.iter().copied().map(Element::Machine)
    }

    fn workers(&self) -> impl Iterator<Item = Element> {
        self.workers.iter().copied().map(Element::Worker)
    }

    fn resolvers(&self) -> impl Iterator<Item = Element> {
        self.resolvers.iter().copied().map(Element::Resolver)
    }
}

/// What is closed is closed first. An element of the map is deleted before one of the same key is added.
fn service_changes(own: &ServiceRules, before: &ServiceRules) -> Vec<Change> {
    let (opened, closed) = own.needs_beside(before);
    let changed = |needs: BTreeSet<(Ipv4Addr, Ipv4Addr)>, add| -> Vec<Change> {
        let elements = needs.into_iter().map(|(from, to)| Element::Need(from, to));
        elements.map(|element| Change { add, element }).collect()
    };
    let (new, old) = own.beside(before);
    let slots = |maps: &[&ServiceMap]| -> BTreeSet<Element> {
        let elements = maps.iter().flat_map(|map| &map.elements);
        elements.copied().map(Element::Slot).collect()
    };
    let (new, old) = (slots(&new), slots(&old));
    let all = [
        changed(closed, false),
        difference(old.iter().copied(), new.iter().copied(), false),
        difference(new.iter().copied(), old.iter().copied(), true),
        changed(opened, true),
    ];
    all.concat()
}

/// A change for each element that the others lack.
fn difference(
    elements: impl Iterator<Item = Element>,
    others: impl Iterator<Item = Element>,
    add: bool,
) -> Vec<Change> {
    let others: BTreeSet<_> = others.collect();
    let missing = elements.filter(|element| !others.contains(element));
    missing.map(|element| Change { add, element }).collect()
}

/// The elements in a set's definition; omitted if there are none, because an empty list is a syntax error.
pub(super) fn elements(elements: impl Iterator<Item = Element>) -> String {
    let lines: String = elements
        .map(|element| format!("      {element},\n"))
        .collect();
    if lines.is_empty() {
        return lines;
    }
    format!("    elements = {{\n{lines}    }}\n")
}

/// The hardware address in the usual notation.
pub(super) fn hardware(ip: Ipv4Addr) -> String {
    hardware_address(ip)
        .map(|byte| format!("{byte:02x}"))
        .join(":")
}

/// Input of `nft -f -` that removes a bridge's table, if it exists.
pub(super) fn render_removal(bridge: &str) -> String {
    let table = table(bridge);
    format!("table ip {table} {{}}\ndelete table ip {table}\n")
}

/// Name of a bridge's table.
pub(super) fn table(bridge: &str) -> String {
    format!("tucano_{}", bridge.replace('-', "_"))
}

/// Rules for tests, without senders.
#[cfg(test)]
pub(super) fn sample(forwards: &[(u16, &str)]) -> Rules {
    Rules {
        bridge: "tucano0".into(),
        subnet: Subnet::default(),
        apis: BTreeSet::from(["10.0.0.1:7070".parse().unwrap()]),
        port_range: PortRange::default(),
        machines: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        clients: BTreeSet::new(),
        workers: BTreeSet::from(["10.0.0.2".parse().unwrap()]),
        resolvers: BTreeSet::new(),
        forwards: forwards
            .iter()
            .map(|(port, to)| ((Transport::Tcp, *port), to.parse().unwrap()))
            .collect(),
        senders: Vec::new(),
        services: None,
    }
}

#[cfg(test)]
mod tests;
