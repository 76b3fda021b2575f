//! The same rules as [`super::rules`] by iptables: chains of the agent's own, to which the kernel's chains jump.

use std::fmt::Write;

use super::{
    firewall::{Error, feed},
    rules::{Rules, hardware},
};

/// One of the variants of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Iptables {
    /// Changes one rule.
    pub(super) program: &'static str,
    /// Changes many, each table's atomically.
    restore: &'static str,
}

/// No bridge's chain has this name.
const TRIAL: &str = "*nat
:tu - [0:0]
-A tu -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination 127.0.0.1:1
-F tu
-X tu
COMMIT
*filter
:tu - [0:0]
-A tu -m conntrack --ctstate DNAT -j RETURN
-A tu -m mac --mac-source 02:00:00:00:00:01 -j RETURN
-F tu
-X tu
COMMIT
";

/// Wait for other programs that change rules, instead of failing.
const WAIT: &str = "--wait";

impl Iptables {
    /// The one with kernel modules of its own.
    pub(super) const LEGACY: Self = Self {
        program: "iptables-legacy",
        restore: "iptables-legacy-restore",
    };

    /// The one that the system prefers.
    pub(super) const USUAL: Self = Self {
        program: "iptables",
        restore: "iptables-restore",
    };

    /// Whether rules such as ours can be put in force. Nothing remains of it.
    pub(super) async fn try_out(&self, bridge: &str) -> Result<(), Error> {
        self.restore(bridge, TRIAL).await
    }

    /// Puts rules in force: the chains' in one change of each table, then, where they are the first, the jumps to them.
    pub(super) async fn apply(&self, rules: &Rules, first: bool) -> Result<(), Error> {
        self.restore(&rules.bridge, &render(rules)).await?;
        if first {
            for jump in jumps(&rules.bridge) {
                self.ensure(&rules.bridge, &jump).await?;
            }
        }
        Ok(())
    }

    /// Removes chains and jumps; absent is fine.
    pub(super) async fn remove(&self, bridge: &str) -> Result<(), Error> {
        for jump in jumps(bridge) {
            // It ends when there is none any more. A jump that cannot be removed shows below: its chain is in use.
            while self.jump("-D", bridge, &jump).await.is_ok() {}
        }
        self.restore(bridge, &render_removal(bridge)).await
    }

    /// An earlier agent may have put it there.
    async fn ensure(&self, bridge: &str, jump: &Jump) -> Result<(), Error> {
        match self.jump("-C", bridge, jump).await {
            Ok(()) => Ok(()),
            Err(_) => self.jump("-I", bridge, jump).await,
        }
    }

    async fn jump(&self, change: &str, bridge: &str, jump: &Jump) -> Result<(), Error> {
        let mut arguments = vec![WAIT, "-t", jump.table, change, jump.from];
        arguments.extend(jump.when.split_whitespace());
        arguments.extend(["-j", &jump.to]);
        feed(bridge, self.program, &arguments, "").await
    }

    async fn restore(&self, bridge: &str, text: &str) -> Result<(), Error> {
        feed(bridge, self.restore, &["--noflush", WAIT], text).await
    }
}

/// A rule in one of the kernel's chains.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Jump {
    table: &'static str,
    from: &'static str,
    when: String,
    to: String,
}

/// The agent's chains, each with its table.
const CHAINS: [(&str, &str); 5] = [
    ("nat", "ports"),
    ("nat", "out"),
    // Before those that jump to it: a chain in use cannot be removed.
    ("filter", "input"),
    ("filter", "forward"),
    ("filter", "spoofed"),
];

/// At most 28 bytes, of which a bridge's name has 15.
fn chain(bridge: &str, name: &str) -> String {
    format!("tu-{bridge}-{name}")
}

fn jumps(bridge: &str) -> [Jump; 5] {
    let jump = |table, from, when: String, name| Jump {
        table,
        from,
        when,
        to: chain(bridge, name),
    };
    let local = "-m addrtype --dst-type LOCAL";
    [
        jump(
            "nat",
            "PREROUTING",
            format!("! -i {bridge} {local}"),
            "ports",
        ),
        jump("nat", "OUTPUT", local.to_owned(), "ports"),
        jump("nat", "POSTROUTING", String::new(), "out"),
        jump("filter", "INPUT", format!("-i {bridge}"), "input"),
        jump("filter", "FORWARD", String::new(), "forward"),
    ]
}

/// The text for `iptables-restore --noflush`: naming a chain empties it.
fn render(rules: &Rules) -> String {
    let (bridge, subnet) = (&rules.bridge, rules.subnet);
    let [ports, out, input, forward, spoofed] = CHAINS.map(|(_, name)| chain(bridge, name));
    let forwards = rules
        .forwards
        .iter()
        .fold(String::new(), |mut text, (port, to)| {
            // Writing to a string cannot fail.
            writeln!(
                text,
                "-A {ports} -p tcp --dport {port} -j DNAT --to-destination {to}"
            )
            .unwrap_or_default();
            text
        });
    let senders = rules.senders.iter().fold(String::new(), |mut text, ip| {
        let hardware = hardware(*ip);
        writeln!(
            text,
            "-A {spoofed} -s {ip} -m mac --mac-source {hardware} -j RETURN"
        )
        .unwrap_or_default();
        text
    });
    let gateway = subnet.gateway();
    let apis = rules.apis.iter().fold(String::new(), |mut text, address| {
        let (ip, port) = (address.ip(), address.port());
        writeln!(
            text,
            "-A {forward} -i {bridge} -d {ip} -p tcp --dport {port} -j DROP"
        )
        .unwrap_or_default();
        text
    });
    format!(
        "*nat
:{ports} - [0:0]
:{out} - [0:0]
{forwards}-A {out} -s {subnet} ! -o {bridge} -j MASQUERADE
-A {out} -s 127.0.0.0/8 -o {bridge} -j MASQUERADE
COMMIT
*filter
:{input} - [0:0]
:{forward} - [0:0]
:{spoofed} - [0:0]
{senders}-A {spoofed} -j DROP
-A {input} -j {spoofed}
-A {input} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-A {input} -d {gateway} -p icmp -j RETURN
-A {input} -j DROP
-A {forward} -i {bridge} -j {spoofed}
-A {forward} -i {bridge} -o {bridge} -j DROP
-A {forward} -i {bridge} -d 169.254.0.0/16 -j DROP
{apis}-A {forward} -o {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-A {forward} -o {bridge} -m conntrack --ctstate DNAT -j RETURN
-A {forward} -o {bridge} -j DROP
COMMIT
"
    )
}

/// A chain that is not there is made first, for removing it to succeed.
fn render_removal(bridge: &str) -> String {
    ["nat", "filter"]
        .map(|table| {
            let own = CHAINS.iter().filter(|(other, _)| *other == table);
            let names: Vec<_> = own.map(|(_, name)| chain(bridge, name)).collect();
            let made: String = names
                .iter()
                .map(|name| format!(":{name} - [0:0]\n"))
                .collect();
            let removed: String = names.iter().map(|name| format!("-X {name}\n")).collect();
            format!("*{table}\n{made}{removed}COMMIT\n")
        })
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::network::rules::sample;

    fn rules(forwards: &[(u16, &str)]) -> Rules {
        Rules {
            senders: vec!["172.31.0.2".parse().unwrap()],
            ..sample(forwards)
        }
    }

    #[test]
    fn each_address_is_let_in_from_its_own_hardware_address() {
        let text = render(&rules(&[]));
        let own = "-A tu-tucano0-spoofed -s 172.31.0.2 -m mac --mac-source 02:74:ac:1f:00:02 -j RETURN\n\
                   -A tu-tucano0-spoofed -j DROP\n";
        assert!(text.contains(own), "{text}");
        for first in [
            "-A tu-tucano0-input -j",
            "-A tu-tucano0-forward -i tucano0 -j",
        ] {
            assert!(
                text.contains(&format!("{first} tu-tucano0-spoofed\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn each_port_is_forwarded_to_its_process() {
        let text = render(&rules(&[
            (20000, "172.31.0.2:8080"),
            (20001, "172.31.0.3:80"),
        ]));
        for line in [
            "-A tu-tucano0-ports -p tcp --dport 20000 -j DNAT --to-destination 172.31.0.2:8080\n",
            "-A tu-tucano0-ports -p tcp --dport 20001 -j DNAT --to-destination 172.31.0.3:80\n",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn processes_reach_neither_the_node_nor_each_other_nor_the_controller() {
        let text = render(&rules(&[]));
        for line in [
            "-A tu-tucano0-forward -i tucano0 -o tucano0 -j DROP\n",
            "-A tu-tucano0-forward -i tucano0 -d 169.254.0.0/16 -j DROP\n",
            "-A tu-tucano0-forward -i tucano0 -d 10.0.0.1 -p tcp --dport 7070 -j DROP\n",
            "-A tu-tucano0-input -j DROP\n",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn names_of_chains_fit_for_the_longest_name_of_a_bridge() {
        for (_, name) in CHAINS {
            assert!(chain("fifteen-letters", name).len() <= 28);
        }
    }

    #[test]
    fn each_chain_is_removed_and_jumped_to() {
        let removal = render_removal("b0");
        let jumps = jumps("b0");
        for (table, name) in CHAINS {
            let chain = chain("b0", name);
            assert!(
                removal.contains(&format!(":{chain} - [0:0]\n")),
                "{removal}"
            );
            assert!(removal.contains(&format!("-X {chain}\n")), "{removal}");
            let jumped = |jump: &Jump| jump.table == table && jump.to == chain;
            let from_own = render(&rules(&[])).contains("-j tu-tucano0-spoofed");
            let is_inner = name == "spoofed" && from_own;
            assert!(is_inner || jumps.iter().any(jumped), "{chain}");
        }
    }
}
