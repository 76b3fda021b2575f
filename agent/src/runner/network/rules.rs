//! The agent's nftables table: forwarding of node ports, outgoing NAT, and what processes may not reach.
//! Rendered whole and swapped in atomically by `nft -f -`, so no state in between is ever in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{
    addresses::Subnet,
    elements::{Change, Element},
    links::hardware_address,
};

/// Everything that the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// The bridge.
    pub(super) bridge: String,
    /// Its network.
    pub(super) subnet: Subnet,
    /// Where the cluster's programs take orders, which processes may not reach.
    pub(super) apis: BTreeSet<SocketAddrV4>,
    /// Node port → process.
    pub(super) forwards: BTreeMap<u16, SocketAddrV4>,
    /// Addresses that are let in from the bridge, each from its own hardware address.
    pub(super) senders: Vec<Ipv4Addr>,
}

impl Rules {
    /// The text for `nft -f -`. Creating the table before deleting it makes the deletion succeed where there was none.
    pub(super) fn render(&self) -> String {
        let (table, bridge, subnet) = (table(&self.bridge), &self.bridge, self.subnet);
        let gateway = subnet.gateway();
        let ports = elements(self.forwards());
        let senders = elements(self.senders());
        let apis = elements(self.apis());
        format!(
            r#"table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  map ports {{
    type inet_service : ipv4_addr . inet_service
{ports}  }}
  set senders {{
    type ether_addr . ipv4_addr
{senders}  }}
  set apis {{
    type ipv4_addr . inet_service
{apis}  }}
  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ether saddr . ip saddr != @senders drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "{bridge}" fib daddr type local dnat ip to tcp dport map @ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to tcp dport map @ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{bridge}" accept
    ct state {{ established, related }} accept
    ip daddr {gateway} meta l4proto icmp accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname "{bridge}" drop
    iifname "{bridge}" ip daddr 169.254.0.0/16 drop
    iifname "{bridge}" ip daddr . tcp dport @apis drop
    oifname "{bridge}" ct state {{ established, related }} accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"#
        )
    }

    /// What makes these of the rules in force, in this order. While a table is replaced there is a moment in which a new
    /// connection finds neither the old nor the new one, and is refused; elements come and go without. None where more than
    /// elements differs.
    pub(super) fn changes(&self, before: &Self) -> Option<Vec<Change>> {
        let with_these_elements = Self {
            forwards: self.forwards.clone(),
            senders: self.senders.clone(),
            apis: self.apis.clone(),
            ..before.clone()
        };
        if with_these_elements != *self {
            return None;
        }
        let all = [
            without(before.forwards(), self.forwards(), false),
            without(self.forwards(), before.forwards(), true),
            without(before.senders(), self.senders(), false),
            without(self.senders(), before.senders(), true),
            // Processes are kept from one before the other may be reached.
            without(self.apis(), before.apis(), true),
            without(before.apis(), self.apis(), false),
        ];
        Some(all.concat())
    }

    fn forwards(&self) -> impl Iterator<Item = Element> {
        let all = self.forwards.iter();
        all.map(|(port, to)| Element::Forward(*port, *to))
    }

    fn senders(&self) -> impl Iterator<Item = Element> {
        self.senders.iter().copied().map(Element::Sender)
    }

    fn apis(&self) -> impl Iterator<Item = Element> {
        self.apis.iter().copied().map(Element::Api)
    }
}

/// Those that are not among the others come, or go.
fn without(
    these: impl Iterator<Item = Element>,
    others: impl Iterator<Item = Element>,
    comes: bool,
) -> Vec<Change> {
    let others: BTreeSet<_> = others.collect();
    let these = these.filter(|element| !others.contains(element));
    these.map(|element| Change { comes, element }).collect()
}

/// A set's elements in its definition. An empty list of them is a syntax error.
fn elements(elements: impl Iterator<Item = Element>) -> String {
    let lines: String = elements
        .map(|element| format!("      {element},\n"))
        .collect();
    if lines.is_empty() {
        return lines;
    }
    format!("    elements = {{\n{lines}    }}\n")
}

/// The hardware address as people and programs write it.
pub(super) fn hardware(ip: Ipv4Addr) -> String {
    hardware_address(ip)
        .map(|byte| format!("{byte:02x}"))
        .join(":")
}

/// The text for `nft -f -` that removes the table of a bridge; absent is fine.
pub(super) fn render_removal(bridge: &str) -> String {
    let table = table(bridge);
    format!("table ip {table} {{}}\ndelete table ip {table}\n")
}

/// Name of a bridge's table.
pub(super) fn table(bridge: &str) -> String {
    format!("tucano_{}", bridge.replace('-', "_"))
}

/// For tests: these forwards, and no senders.
#[cfg(test)]
pub(super) fn sample(forwards: &[(u16, &str)]) -> Rules {
    Rules {
        bridge: "tucano0".into(),
        subnet: Subnet::default(),
        apis: BTreeSet::from(["10.0.0.1:7070".parse().unwrap()]),
        forwards: forwards
            .iter()
            .map(|(port, to)| (*port, to.parse().unwrap()))
            .collect(),
        senders: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{sample as rules, *};

    #[test]
    fn each_address_is_let_in_from_its_own_hardware_address() {
        let mut rules = rules(&[]);
        rules.senders = vec!["172.31.1.2".parse().unwrap()];
        let text = rules.render();
        assert!(text.contains("02:74:ac:1f:01:02 . 172.31.1.2,\n"), "{text}");
        assert!(
            text.contains("iifname \"tucano0\" ether saddr . ip saddr != @senders drop"),
            "{text}"
        );
    }

    #[test]
    fn each_port_is_forwarded_to_its_process() {
        let text = rules(&[(20000, "172.31.0.2:8080"), (20001, "172.31.0.3:80")]).render();
        assert!(text.contains("20000 : 172.31.0.2 . 8080,\n"), "{text}");
        assert!(text.contains("20001 : 172.31.0.3 . 80,\n"), "{text}");
    }

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        let text = rules(&[]).render();
        assert!(
            text.starts_with(
                "table ip tucano_tucano0 {}\ndelete table ip tucano_tucano0\ntable ip"
            )
        );
        let nothing = Rules {
            apis: BTreeSet::new(),
            ..rules(&[])
        };
        assert!(
            !nothing.render().contains("elements"),
            "an empty list is a syntax error"
        );
    }

    fn changes(after: &Rules, before: &Rules) -> Vec<String> {
        let changes = after.changes(before).unwrap();
        let text = |Change { comes, element }: &Change| {
            let what = if *comes { "add" } else { "delete" };
            format!("{what} {} {element}", element.set())
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn only_the_elements_that_differ_come_and_go() {
        let before = rules(&[(20000, "172.31.0.2:80"), (20001, "172.31.0.3:80")]);
        let mut after = rules(&[(20001, "172.31.0.3:81"), (20002, "172.31.0.4:80")]);
        after.senders = vec!["172.31.1.2".parse().unwrap()];
        assert_eq!(
            changes(&after, &before),
            [
                "delete ports 20000 : 172.31.0.2 . 80",
                "delete ports 20001 : 172.31.0.3 . 80",
                "add ports 20001 : 172.31.0.3 . 81",
                "add ports 20002 : 172.31.0.4 . 80",
                "add senders 02:74:ac:1f:01:02 . 172.31.1.2",
            ]
        );
        assert_eq!(changes(&after, &after), [""; 0]);
        let other_apis = Rules {
            apis: BTreeSet::from(["10.0.0.2:7071".parse().unwrap()]),
            ..before.clone()
        };
        assert_eq!(
            changes(&other_apis, &before),
            ["add apis 10.0.0.2 . 7071", "delete apis 10.0.0.1 . 7070"]
        );
        let elsewhere = Rules {
            bridge: "other0".into(),
            ..before.clone()
        };
        assert_eq!(after.changes(&elsewhere), None);
    }

    #[test]
    fn processes_reach_neither_the_node_nor_each_other_nor_the_controller() {
        let text = rules(&[]).render();
        for rule in [
            "iifname \"tucano0\" oifname \"tucano0\" drop",
            "iifname \"tucano0\" ip daddr 169.254.0.0/16 drop",
            "iifname \"tucano0\" ip daddr . tcp dport @apis drop",
            "      10.0.0.1 . 7070,\n",
            "ip daddr 172.31.0.1 meta l4proto icmp accept\n    drop",
        ] {
            assert!(text.contains(rule), "{rule} is missing in {text}");
        }
    }
}
