//! The rules that connect services, as text for `nft` within the table of [`super::rules`].
//!
//! An agent that is being restarted leaves look-ups unanswered instead of refused, so that clients ask again.
//!
//! What is not needed is refused before connections are tracked, so that a need that is taken back ends open connections too. One
//! rule and one map translate every service's address.

use super::{elements::Element, services::ServiceRules};

/// The parts of the table.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Sets and chains of their own.
    pub(super) own: String,
    /// In the chain that translates destinations.
    pub(super) translation: String,
    /// In the chain that translates sources.
    pub(super) masquerade: String,
    /// In the chain of forwarded packets, before what drops them.
    pub(super) forward: String,
}

/// The map's type: the number that is drawn, then the address, protocol and port of the service.
pub(super) const MAP_TYPE: &str =
    "typeof numgen random mod 64 . ip daddr . meta l4proto . th dport : ip daddr . th dport";
/// The key that is looked up.
const KEY: &str = "numgen random mod 64 . ip daddr . meta l4proto . th dport";

/// A table with one of each kind, to see whether they work here.
pub(super) fn probe(table: &str) -> String {
    format!(
        "table ip {table} {{
  map services {{
    {MAP_TYPE}
  }}
  chain refused {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"none\" meta l4proto tcp reject with tcp reset
  }}
  chain translation {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"none\" dnat ip to {KEY} map @services
  }}
}}
delete table ip {table}
"
    )
}

/// The parts for a bridge whose processes have addresses of `subnet`.
pub(super) fn parts(rules: &ServiceRules, bridge: &str, subnet: impl std::fmt::Display) -> Parts {
    let to = rules.subnet;
    let needs = super::rules::elements(rules.elements_of_needs());
    let services = super::rules::elements(rules.elements_of_maps());
    let refusals = format!(
        "    iifname \"{bridge}\" ip daddr {to} meta l4proto tcp reject with tcp reset
    iifname \"{bridge}\" ip daddr {to} meta l4proto udp reject with icmp type admin-prohibited
    iifname \"{bridge}\" ip daddr {to} drop
"
    );
    Parts {
        own: format!(
            "  set needs {{
    type ipv4_addr . ipv4_addr
{needs}  }}
  map services {{
    {MAP_TYPE}
{services}  }}
  chain needed {{
    type filter hook prerouting priority -290; policy accept;
    iifname \"{bridge}\" ip daddr {to} meta l4proto {{ tcp, udp }} ip saddr . ip daddr @needs accept
{refusals}  }}
  chain unserved {{
    type filter hook prerouting priority -90; policy accept;
{refusals}  }}
  chain silence {{
    type filter hook output priority filter; policy accept;
    oifname \"{bridge}\" icmp type redirect drop
    oifname \"{bridge}\" icmp type destination-unreachable icmp code port-unreachable drop
  }}
"
        ),
        translation: format!(
            "    iifname \"{bridge}\" ip daddr {to} dnat ip to {KEY} map @services\n"
        ),
        masquerade: format!(
            "    ip saddr {subnet} oifname \"{bridge}\" ct status dnat masquerade\n"
        ),
        forward: format!("    iifname \"{bridge}\" ct status dnat accept\n"),
    }
}

impl ServiceRules {
    pub(super) fn elements_of_needs(&self) -> impl Iterator<Item = Element> {
        let needs = self.needs.iter().copied();
        needs.map(|(from, to)| Element::Need(from, to))
    }

    pub(super) fn elements_of_maps(&self) -> impl Iterator<Item = Element> {
        self.slots().map(Element::Slot)
    }
}
