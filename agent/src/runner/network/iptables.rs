//! The rules of [`super::rules`] by iptables, in chains of the agent's own that the built-in chains jump to.

use std::fmt::Write;

use super::{
    firewall::{Error, run},
    rules::{Rules, hardware},
};

/// A variant of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Iptables {
    /// Program that changes one rule.
    pub(super) program: &'static str,
    /// Program that changes many rules, atomically per table.
    restore: &'static str,
}

/// Creates and deletes rules like ours in chains whose name no bridge's chain has.
const PROBE: &str = "*nat
:tu - [0:0]
-A tu -p tcp -m addrtype --src-type LOCAL --dst-type LOCAL -j DNAT --to-destination 127.0.0.1:1
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

/// Waits for other programs that change rules, instead of failing.
const WAIT: &str = "--wait";

impl Iptables {
    /// The variant with its own kernel modules.
    pub(super) const LEGACY: Self = Self {
        program: "iptables-legacy",
        restore: "iptables-legacy-restore",
    };

    /// The system's default variant.
    pub(super) const SYSTEM: Self = Self {
        program: "iptables",
        restore: "iptables-restore",
    };

    /// Checks whether rules like ours can be put in force. Leaves nothing behind.
    pub(super) async fn probe(&self, bridge: &str) -> Result<(), Error> {
        self.restore(bridge, PROBE).await
    }

    /// Puts rules in force: the chains in one change per table, then, for the first rules, the jumps to them.
    pub(super) async fn apply(&self, rules: &Rules, first: bool) -> Result<(), Error> {
        self.restore(&rules.bridge, &render(rules)).await?;
        if first {
            for jump in jumps(&rules.bridge) {
                self.ensure(&rules.bridge, &jump).await?;
            }
        }
        Ok(())
    }

    /// Removes chains and jumps; missing ones are no error.
    pub(super) async fn remove(&self, bridge: &str) -> Result<(), Error> {
        for jump in jumps(bridge) {
            // Fails when no jump is left. A jump that cannot be removed causes an error below: its chain is in use.
            while self.jump("-D", bridge, &jump).await.is_ok() {}
        }
        self.restore(bridge, &render_removal(bridge)).await
    }

    /// Adds the jump, unless an earlier agent did.
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
        run(bridge, self.program, &arguments, "").await
    }

    async fn restore(&self, bridge: &str, text: &str) -> Result<(), Error> {
        run(bridge, self.restore, &["--noflush", WAIT], text).await
    }
}

/// A jump from a built-in chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Jump {
    table: &'static str,
    from: &'static str,
    when: String,
    to: String,
}

/// The agent's chains, each with its table.
const CHAINS: [(&str, &str); 6] = [
    // Before `dnat`, which it jumps to: a chain in use cannot be removed.
    ("nat", "ports"),
    ("nat", "dnat"),
    ("nat", "out"),
    // Before `spoofed`, which they jump to: a chain in use cannot be removed.
    ("filter", "input"),
    ("filter", "forward"),
    ("filter", "spoofed"),
];

/// At most 28 bytes, of which the bridge's name has up to 15.
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

/// Input of `iptables-restore --noflush`, which empties the chains that it names.
fn render(rules: &Rules) -> String {
    let (bridge, subnet) = (&rules.bridge, rules.subnet);
    let [ports, dnat, out, input, forward, spoofed] = CHAINS.map(|(_, name)| chain(bridge, name));
    let forwards =
        rules
            .forwards
            .iter()
            .fold(String::new(), |mut text, ((transport, port), to)| {
                // Writing to a `String` cannot fail.
                writeln!(
                    text,
                    "-A {dnat} -p {transport} --dport {port} -j DNAT --to-destination {to}"
                )
                .unwrap_or_default();
                text
            });
    // Forwarded are connections of the node itself, of the cluster's machines, and of further clients.
    let machines = rules.machines.iter().map(ToString::to_string);
    let clients = machines.chain(rules.clients.iter().map(ToString::to_string));
    let clients: String = clients
        .map(|from| format!("-A {ports} -s {from} -j {dnat}\n"))
        .collect();
    let resolvers = |chain: &str, verdict: &str| -> String {
        let rules = rules.resolvers.iter().flat_map(|ip| {
            ["tcp", "udp"].map(|protocol| {
                format!("-A {chain} -i {bridge} -d {ip} -p {protocol} --dport 53 -j {verdict}\n")
            })
        });
        rules.collect()
    };
    let (dns_of_node, dns_beyond) = (resolvers(&input, "RETURN"), resolvers(&forward, "RETURN"));
    let range = rules.port_range.to_string().replace('-', ":");
    let workers = rules.workers.iter().flat_map(|ip| {
        ["tcp", "udp"].map(|transport| {
            format!("-A {forward} -i {bridge} -d {ip} -p {transport} --dport {range} -j DROP\n")
        })
    });
    let workers: String = workers.collect();
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
:{dnat} - [0:0]
:{out} - [0:0]
{forwards}-A {ports} -m addrtype --src-type LOCAL -j {dnat}
{clients}-A {out} -s {subnet} ! -o {bridge} -j MASQUERADE
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
{dns_of_node}-A {input} -j DROP
-A {forward} -i {bridge} -j {spoofed}
-A {forward} -i {bridge} -o {bridge} -j DROP
{dns_beyond}-A {forward} -i {bridge} -d 169.254.0.0/16 -j DROP
{workers}{apis}-A {forward} -o {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-A {forward} -o {bridge} -m conntrack --ctstate DNAT -j RETURN
-A {forward} -o {bridge} -j DROP
COMMIT
"
    )
}

/// Declares each chain first, so that the removal succeeds if it does not exist.
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
mod tests;
