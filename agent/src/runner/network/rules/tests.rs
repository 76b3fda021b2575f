use super::{sample as rules, *};

#[test]
fn each_address_is_accepted_only_from_its_own_hardware_address() {
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
fn only_machines_of_the_cluster_and_configured_clients_reach_node_ports() {
    let mut rules = rules(&[(20000, "172.31.0.2:80")]);
    rules.clients = BTreeSet::from(["192.0.2.0/24".parse().unwrap()]);
    let text = rules.render();
    let forward = "fib daddr type local dnat ip to tcp dport map @ports\n";
    let from: Vec<_> = text
        .lines()
        .filter(|line| format!("{line}\n").ends_with(forward))
        .map(|line| line.trim().trim_end_matches(forward.trim_end()).trim())
        .collect();
    let expected = [
        "iifname != \"tucano0\" ip saddr @machines",
        "iifname != \"tucano0\" ip saddr 192.0.2.0/24",
        "",
    ];
    assert_eq!(from, expected);
}

#[test]
fn of_a_resolver_only_dns_is_reachable() {
    let mut rules = rules(&[]);
    rules.resolvers = BTreeSet::from(["169.254.169.254".parse().unwrap()]);
    let text = rules.render();
    let dns = "ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept\n";
    assert_eq!(text.matches(dns).count(), 2, "{text}");
    let (dns, drop) = (text.rfind(dns), text.find("ip daddr 169.254.0.0/16 drop"));
    assert!(dns < drop, "{text}");
    assert!(text.contains("      169.254.169.254,\n"), "{text}");
}

#[test]
fn the_table_is_replaced_in_one_transaction() {
    let text = rules(&[]).render();
    assert!(
        text.starts_with("table ip tucano_tucano0 {}\ndelete table ip tucano_tucano0\ntable ip")
    );
    let nothing = Rules {
        apis: BTreeSet::new(),
        machines: BTreeSet::new(),
        workers: BTreeSet::new(),
        ..rules(&[])
    };
    assert!(
        !nothing.render().contains("elements"),
        "an empty list is a syntax error"
    );
}

fn changes(after: &Rules, before: &Rules) -> Vec<String> {
    let changes = after.changes(before).unwrap();
    let text = |Change { add, element }: &Change| {
        let what = if *add { "add" } else { "delete" };
        format!("{what} {} {element}", element.set())
    };
    changes.iter().map(text).collect()
}

#[test]
fn only_differing_elements_are_changed() {
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
    let other_bridge = Rules {
        bridge: "other0".into(),
        ..before.clone()
    };
    assert_eq!(after.changes(&other_bridge), None);
}

#[test]
fn processes_are_blocked_from_the_node_each_other_and_the_controller() {
    let text = rules(&[]).render();
    for rule in [
        "iifname \"tucano0\" oifname \"tucano0\" drop",
        "iifname \"tucano0\" ip daddr 169.254.0.0/16 drop",
        "iifname \"tucano0\" ip daddr . tcp dport @apis drop",
        "      10.0.0.1 . 7070,\n",
        "iifname \"tucano0\" ip daddr @workers meta l4proto { tcp, udp } th dport 20000-29999 drop",
    ] {
        assert!(text.contains(rule), "{rule} is missing in {text}");
    }
}
