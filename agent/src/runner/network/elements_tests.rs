//! Comparisons with `nft`, each in a network namespace of its own.

use std::{collections::BTreeMap, fs, net::SocketAddrV4, process::Command, sync::Arc};

use nix::sched::{CloneFlags, unshare};
use proptest::{collection, prelude::*, test_runner};
use tucano_api::names::ServiceSubnet;
use tucano_testkit::{ROOT, needs, tool};

use super::{
    Transport,
    elements::{Change, Element, change},
    firewall::Firewall,
    rules::{Rules, sample, table},
    service_rules,
    services::{Maps, ServiceMap, ServiceRules, SlotElement},
    watch,
};

/// Runs a test on a thread with a network namespace of its own, if root and `nft` are available.
pub(super) fn in_own_network(test: impl FnOnce() + Send) {
    if !needs(&[ROOT, tool("nft")]) {
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    });
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn make(rules: &Rules) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules.render()).unwrap();
    nft(&["-f", file.path().to_str().unwrap()]);
}

/// The kernel's table as sorted words.
fn listed(bridge: &str) -> Vec<String> {
    let text = nft(&["list", "table", "ip", &table(bridge)]);
    let text = text.replace(bridge, "bridge");
    let words = text.split(['{', '}', ',', '\n']).map(str::trim);
    let mut words: Vec<_> = words
        .filter(|word| !word.is_empty() && *word != "elements =")
        .map(str::to_owned)
        .collect();
    words.sort_unstable();
    words
}

fn any_services() -> impl Strategy<Value = ServiceRules> {
    let slot = (
        0_u32..4,
        1_u8..3,
        prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)],
    );
    let slots = collection::btree_map(slot, 2_u8..5, 0..6);
    let needs = collection::btree_set((2_u8..5, 1_u8..4), 0..5);
    (slots, needs).prop_map(|(slots, needs)| {
        let elements = slots
            .into_iter()
            .map(|((number, address, transport), to)| SlotElement {
                number,
                address: [100, 80, 0, address].into(),
                transport,
                port: 5432,
                to: SocketAddrV4::new([172, 31, 0, to].into(), 80),
            });
        let map = ServiceMap {
            elements: elements.collect(),
            answering: Default::default(),
        };
        let mut maps = Maps::default();
        maps.insert("db".parse().unwrap(), map);
        let needs = needs.into_iter();
        let needs = needs.map(|(from, to)| ([172, 31, 0, from].into(), [100, 80, 0, to].into()));
        ServiceRules {
            subnet: ServiceSubnet::default(),
            needs: Arc::new(needs.collect()),
            maps,
        }
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let socket = (2_u8..6, 80_u16..83);
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    let forwards = collection::btree_map((transport, 20_000_u16..20_008), socket, 0..6);
    let apis = collection::btree_set((1_u8..5, 7070_u16..7072), 0..4);
    let machines = collection::btree_set(1_u8..5, 0..4);
    let sets = (machines.clone(), machines.clone(), machines);
    (forwards, apis, 0_usize..6, sets, any_services()).prop_map(
        |(forwards, apis, senders, sets, services)| {
            let process = |(ip, port)| format!("172.31.0.{ip}:{port}").parse().unwrap();
            let api = |(ip, port)| format!("10.0.0.{ip}:{port}").parse().unwrap();
            let ips = |set: std::collections::BTreeSet<u8>| {
                let ips = set.into_iter();
                ips.map(|last| [10, 0, 1, last].into()).collect()
            };
            let none = sample(&[]);
            Rules {
                forwards: BTreeMap::from_iter(
                    forwards.into_iter().map(|(port, to)| (port, process(to))),
                ),
                apis: apis.into_iter().map(api).collect(),
                machines: ips(sets.0),
                workers: ips(sets.1),
                resolvers: ips(sets.2),
                services: Some(services),
                senders: none.subnet.hosts().take(senders).collect(),
                ..none
            }
        },
    )
}

#[test]
fn incremental_changes_equal_a_complete_table_by_nft() {
    in_own_network(|| {
        let mut runner = test_runner::TestRunner::new(test_runner::Config {
            failure_persistence: None,
            ..test_runner::Config::with_cases(12)
        });
        let steps = collection::vec(any_rules(), 2..5);
        let of = |bridge: &str, rules: &Rules| Rules {
            bridge: bridge.into(),
            ..rules.clone()
        };
        let tested = runner.run(&steps, |steps| {
            make(&of("ours0", &steps[0]));
            for step in steps.windows(2) {
                let changes = step[1].changes(&step[0]).unwrap();
                change(&table("ours0"), &changes).unwrap();
                make(&of("nfts0", &step[1]));
                prop_assert_eq!(listed("ours0"), listed("nfts0"));
            }
            Ok(())
        });
        tested.unwrap();
    });
}

#[test]
fn a_refused_element_is_named_and_nothing_is_changed() {
    in_own_network(|| {
        let rules = sample(&[(20000, "172.31.0.2:80")]);
        make(&rules);
        let before = listed("tucano0");
        let forward = |add, port, to: &str| Change {
            add,
            element: Element::Forward((Transport::Tcp, port), to.parse().unwrap()),
        };
        let refused = change(
            &table("tucano0"),
            &[
                forward(false, 20000, "172.31.0.2:80"),
                forward(false, 20001, "172.31.0.9:99"),
                forward(true, 20002, "172.31.0.3:80"),
            ],
        );
        let text = refused.unwrap_err().to_string();
        let expected = "cannot delete the element 20001 : 172.31.0.9 . 99 of ports in the table tucano_tucano0: ";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(listed("tucano0"), before);

        let elsewhere = change("no_such_table", &[forward(true, 20002, "172.31.0.3:80")]);
        let text = elsewhere.unwrap_err().to_string();
        assert!(text.contains("in the table no_such_table: "), "{text}");
        assert_eq!(listed("tucano0"), before);
    });
}

#[test]
fn a_table_changed_by_another_program_is_replaced() {
    in_own_network(|| {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let before = sample(&[(20000, "172.31.0.2:80")]);
        let after = sample(&[(20000, "172.31.0.2:80"), (20001, "172.31.0.3:80")]);
        make(&after);
        let wanted = listed("tucano0");
        for trouble in [
            "flush ruleset",
            "delete element ip tucano_tucano0 ports { 20001 }",
        ] {
            make(&after);
            nft(&[trouble]);
            // The element to delete does not exist any more.
            let changed = async {
                let nftables = Firewall::Nftables { services: true };
                nftables.apply(&before, Some(&after)).await?;
                nftables.apply(&after, Some(&before)).await
            };
            tokio.block_on(changed).unwrap();
            assert_eq!(listed("tucano0"), wanted, "{trouble}");
        }
    });
}

#[test]
fn rules_that_another_program_removes_are_noticed_and_its_own_changes_are_not() {
    in_own_network(|| {
        let name = table("tucano0");
        assert_eq!(watch::look(&name, None).unwrap().rules, 0);
        make(&sample(&[(20000, "172.31.0.2:80")]));
        let made = watch::look(&name, None).unwrap();
        assert!(made.rules > 10, "{made:?}");
        assert_eq!(watch::look(&name, Some(made)).unwrap(), made);
        nft(&["add table ip other"]);
        let other = watch::look(&name, Some(made)).unwrap();
        assert_ne!(other.generation, made.generation);
        assert_eq!(other.rules, made.rules);
        for trouble in [format!("flush table ip {name}"), "flush ruleset".to_owned()] {
            make(&sample(&[]));
            nft(&[&trouble]);
            assert_eq!(
                watch::look(&name, Some(made)).unwrap().rules,
                0,
                "{trouble}"
            );
        }
    });
}

#[test]
fn the_rules_that_connect_services_are_tried_without_a_trace() {
    in_own_network(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), service_rules::probe("tucano")).unwrap();
        nft(&["-f", file.path().to_str().unwrap()]);
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}
