use super::*;
use crate::runner::network::rules::sample;

fn rules(forwards: &[(u16, &str)]) -> Rules {
    Rules {
        senders: vec!["172.31.0.2".parse().unwrap()],
        ..sample(forwards)
    }
}

#[test]
fn each_address_is_accepted_only_from_its_own_hardware_address() {
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
        "-A tu-tucano0-dnat -p tcp --dport 20000 -j DNAT --to-destination 172.31.0.2:8080\n",
        "-A tu-tucano0-dnat -p tcp --dport 20001 -j DNAT --to-destination 172.31.0.3:80\n",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[test]
fn processes_are_blocked_from_the_node_each_other_and_the_controller() {
    let text = render(&rules(&[]));
    for line in [
        "-A tu-tucano0-forward -i tucano0 -o tucano0 -j DROP\n",
        "-A tu-tucano0-forward -i tucano0 -d 169.254.0.0/16 -j DROP\n",
        "-A tu-tucano0-forward -i tucano0 -d 10.0.0.1 -p tcp --dport 7070 -j DROP\n",
        "-A tu-tucano0-forward -i tucano0 -d 10.0.0.2 -p tcp --dport 20000:29999 -j DROP\n",
        "-A tu-tucano0-input -j DROP\n",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[test]
fn only_machines_of_the_cluster_and_configured_clients_reach_node_ports() {
    let mut rules = rules(&[(20000, "172.31.0.2:80")]);
    rules.clients = ["192.0.2.0/24".parse().unwrap()].into();
    let text = render(&rules);
    let from: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("-A tu-tucano0-ports "))
        .collect();
    let expected = [
        "-m addrtype --src-type LOCAL -j tu-tucano0-dnat",
        "-s 10.0.0.1 -j tu-tucano0-dnat",
        "-s 192.0.2.0/24 -j tu-tucano0-dnat",
    ];
    assert_eq!(from, expected);
}

#[test]
fn of_a_resolver_only_dns_is_reachable() {
    let mut rules = rules(&[]);
    rules.resolvers = ["169.254.169.254".parse().unwrap()].into();
    let text = render(&rules);
    for protocol in ["tcp", "udp"] {
        let dns = format!(
            "-A tu-tucano0-forward -i tucano0 -d 169.254.169.254 -p {protocol} --dport 53 -j RETURN\n"
        );
        let (dns, drop) = (text.find(&dns), text.find("-d 169.254.0.0/16 -j DROP"));
        assert!(dns.is_some() && dns < drop, "{text}");
    }
}

#[test]
fn chain_names_fit_for_the_longest_bridge_name() {
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
        let own = render(&rules(&[]));
        let is_inner = own.contains(&format!("-j tu-tucano0-{name}\n"));
        assert!(is_inner || jumps.iter().any(jumped), "{chain}");
    }
}
