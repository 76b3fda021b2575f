//! The agent's nftables table: forwarding of node ports, outgoing NAT, and what processes may not reach.
//! Rendered whole and swapped in atomically by `nft -f -`, so no state in between is ever in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{addresses::Subnet, links::hardware_address};

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
        let elements = self.render_elements();
        let senders = self.render_senders();
        let apis = self.render_apis();
        format!(
            r#"table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  map ports {{
    type inet_service : ipv4_addr . inet_service
{elements}  }}
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

    /// The text for `nft -f -` that makes these of the rules in force. While a table is replaced there is a moment in which
    /// a new connection finds neither the old nor the new one, and is refused; elements come and go without. None where
    /// more than elements differs.
    pub(super) fn render_change(&self, before: &Self) -> Option<String> {
        let elements_of = |rules: &Self| Self {
            forwards: self.forwards.clone(),
            senders: self.senders.clone(),
            apis: self.apis.clone(),
            ..rules.clone()
        };
        if elements_of(before) != *self {
            return None;
        }
        let gone = |port: &u16, to: &SocketAddrV4| self.forwards.get(port) != Some(to);
        let is_new = |port: &u16, to: &SocketAddrV4| before.forwards.get(port) != Some(to);
        let senders = |of: &Self, but: &Self| -> Vec<String> {
            let known: BTreeSet<_> = but.senders.iter().collect();
            let others = of.senders.iter().filter(|ip| !known.contains(ip));
            others.map(|ip| sender(*ip)).collect()
        };
        let apis = |of: &Self, but: &Self| -> Vec<String> {
            of.apis.difference(&but.apis).map(api).collect()
        };
        let forwards = |of: &Self, which: &dyn Fn(&u16, &SocketAddrV4) -> bool| {
            let chosen = of.forwards.iter().filter(|(port, to)| which(port, to));
            chosen.map(|(port, to)| (*port, *to)).collect::<Vec<_>>()
        };
        let ports = |(port, _): &(u16, SocketAddrV4)| port.to_string();
        let targets = |(port, to): &(u16, SocketAddrV4)| forward(*port, *to);
        let changes = [
            (
                "delete",
                "ports",
                forwards(before, &gone).iter().map(ports).collect(),
            ),
            (
                "add",
                "ports",
                forwards(self, &is_new).iter().map(targets).collect(),
            ),
            ("delete", "senders", senders(before, self)),
            ("add", "senders", senders(self, before)),
            ("add", "apis", apis(self, before)),
            ("delete", "apis", apis(before, self)),
        ];
        let table = table(&self.bridge);
        let lines = changes
            .iter()
            .filter(|(_, _, elements): &&(_, _, Vec<String>)| !elements.is_empty());
        let lines = lines.map(|(what, set, elements)| {
            format!(
                "{what} element ip {table} {set} {{ {} }}\n",
                elements.join(", ")
            )
        });
        Some(lines.collect())
    }

    fn render_senders(&self) -> String {
        if self.senders.is_empty() {
            return String::new();
        }
        let each = self
            .senders
            .iter()
            .map(|ip| format!("      {},\n", sender(*ip)));
        format!("    elements = {{\n{}    }}\n", each.collect::<String>())
    }

    fn render_apis(&self) -> String {
        if self.apis.is_empty() {
            return String::new();
        }
        let each = self
            .apis
            .iter()
            .map(|address| format!("      {},\n", api(address)));
        format!("    elements = {{\n{}    }}\n", each.collect::<String>())
    }

    fn render_elements(&self) -> String {
        // An empty list of elements is a syntax error.
        if self.forwards.is_empty() {
            return String::new();
        }
        let mut text = String::from("    elements = {\n");
        for (port, to) in &self.forwards {
            // Writing to a string cannot fail.
            writeln!(text, "      {},", forward(*port, *to)).unwrap_or_default();
        }
        text.push_str("    }\n");
        text
    }
}

/// An element of the map `ports`.
fn forward(port: u16, to: SocketAddrV4) -> String {
    format!("{port} : {} . {}", to.ip(), to.port())
}

/// An element of the set `apis`.
fn api(address: &SocketAddrV4) -> String {
    format!("{} . {}", address.ip(), address.port())
}

/// An element of the set `senders`.
fn sender(ip: Ipv4Addr) -> String {
    format!("{} . {ip}", hardware(ip))
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

fn table(bridge: &str) -> String {
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

    #[test]
    fn only_the_elements_that_differ_come_and_go() {
        let before = rules(&[(20000, "172.31.0.2:80"), (20001, "172.31.0.3:80")]);
        let mut after = rules(&[(20001, "172.31.0.3:81"), (20002, "172.31.0.4:80")]);
        after.senders = vec!["172.31.1.2".parse().unwrap()];
        assert_eq!(
            after.render_change(&before).unwrap(),
            "delete element ip tucano_tucano0 ports { 20000, 20001 }\n\
             add element ip tucano_tucano0 ports { 20001 : 172.31.0.3 . 81, 20002 : 172.31.0.4 . 80 }\n\
             add element ip tucano_tucano0 senders { 02:74:ac:1f:01:02 . 172.31.1.2 }\n"
        );
        assert_eq!(after.render_change(&after).unwrap(), "");
        let other_apis = Rules {
            apis: BTreeSet::from(["10.0.0.2:7071".parse().unwrap()]),
            ..before.clone()
        };
        assert_eq!(
            other_apis.render_change(&before).unwrap(),
            "add element ip tucano_tucano0 apis { 10.0.0.2 . 7071 }\n\
             delete element ip tucano_tucano0 apis { 10.0.0.1 . 7070 }\n"
        );
        let elsewhere = Rules {
            bridge: "other0".into(),
            ..before.clone()
        };
        assert_eq!(after.render_change(&elsewhere), None);
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
