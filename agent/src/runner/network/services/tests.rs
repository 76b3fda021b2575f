use tucano_api::{names::NamedPort, service::Protocol, settings::parse};

use super::{super::connections, *};

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn endpoint(service: &str, number: u64, slot: Option<u32>) -> NamedEndpoint {
    NamedEndpoint {
        process: ProcessId::new(&name(service), number),
        node: "w2".parse().unwrap(),
        slot,
        weight: 100,
        ip: [10, 0, 0, 2].into(),
        node_ports: vec![Some(20_000 + number as u16)],
    }
}

fn service(text: &str, last: u8, endpoints: Vec<NamedEndpoint>) -> NamedService {
    NamedService {
        leaving: Vec::new(),
        service: name(text),
        address: [100, 80, 0, last].into(),
        slots: Vec::new(),
        nearest: false,
        ports: vec![NamedPort {
            name: PortName::http(),
            port: 5432,
            protocol: Protocol::Tcp,
        }],
        endpoints,
    }
}

fn process(service: &str, number: u64, more: &str) -> DesiredProcess {
    let text = format!("name = \"{service}\"\nconcurrency = 1\nport = 8080\n{more}");
    DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: ProcessId::new(&name(service), number),
        revision: tucano_api::ids::Revision(1),
        image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        config: parse("service.toml", &text).unwrap(),
        slot: None,
        volumes: Vec::new(),
        run: None,
    }
}

fn learned(services: Vec<NamedService>) -> Names {
    Names {
        version: "s-1".to_owned(),
        whole: true,
        services,
        gone: Vec::new(),
    }
}

fn with(services: Vec<NamedService>) -> Services {
    let mut all = Services::new(0);
    all.set_subnet(Some(ServiceSubnet::default()));
    all.learn(learned(services));
    all
}

#[test]
fn only_what_a_process_needs_is_open_to_it() {
    let mut all = with(vec![
        service("db", 1, Vec::new()),
        service("cache", 2, Vec::new()),
    ]);
    let (web, other) = ([172, 31, 0, 2].into(), [172, 31, 0, 3].into());
    all.set_process(web, &process("web", 1, "needs = [\"db\", \"gone\"]"));
    all.set_process(other, &process("other", 2, ""));
    let needs = |all: &Services| (*all.rules().unwrap().needs).clone();
    assert_eq!(needs(&all), [(web, [100, 80, 0, 1].into())].into());
    assert_eq!(all.visible(web).len(), 1);
    assert!(all.visible(other).is_empty() && all.visible([10, 0, 0, 1].into()).is_empty());
    assert_eq!(all.unknown(&[name("db"), name("gone")]), [name("gone")]);
    // Taken back while it runs.
    all.set_process(web, &process("web", 1, "needs = [\"cache\"]"));
    assert_eq!(needs(&all), [(web, [100, 80, 0, 2].into())].into());
    all.remove_process(web);
    assert!(needs(&all).is_empty() && !all.are_needed());
}

#[test]
fn connections_are_shared_out_by_weight_and_none_is_left_out() {
    let to = |last: u8| SocketAddrV4::new([10, 0, 0, last].into(), 80);
    let count = |shares: &[SocketAddrV4], last| shares.iter().filter(|it| **it == to(last)).count();
    let equal = shares(vec![(to(1), 100), (to(2), 100)], 0);
    assert_eq!((count(&equal, 1), count(&equal, 2)), (32, 32));
    let uneven = shares(vec![(to(1), 100), (to(2), 50), (to(3), 1)], 0);
    assert_eq!(uneven.len(), 64);
    assert!((41..=43).contains(&count(&uneven, 1)), "{uneven:?}");
    assert_eq!(count(&uneven, 3), 1);
    let many = |seed| shares((0..200).map(|last| (to(last), 1)).collect(), seed);
    let distinct: BTreeSet<_> = many(0).into_iter().collect();
    assert_eq!(distinct.len(), 64);
    assert_ne!(many(0), many(1));
    assert!(shares(Vec::new(), 0).is_empty());
}

#[test]
fn a_neighbour_answers_at_its_own_address_and_a_slot_at_the_slots() {
    let mut db = service(
        "db",
        1,
        vec![endpoint("db", 1, Some(1)), endpoint("db", 2, Some(2))],
    );
    db.slots = vec![[100, 80, 0, 8].into(), [100, 80, 0, 9].into()];
    let mut all = with(vec![db]);
    let ip = Ipv4Addr::new(172, 31, 0, 7);
    all.set_process(ip, &process("db", 1, ""));
    let rules = all.rules().unwrap();
    let of = |address: [u8; 4]| -> BTreeSet<String> {
        let at = rules
            .slots()
            .filter(|it| it.address == Ipv4Addr::from(address));
        at.map(|it| format!("{} -> {}", it.port, it.to)).collect()
    };
    let (local, remote) = ("5432 -> 172.31.0.7:8080", "5432 -> 10.0.0.2:20002");
    assert_eq!(
        of([100, 80, 0, 1]),
        [local.to_owned(), remote.to_owned()].into()
    );
    assert_eq!(of([100, 80, 0, 8]), [local.to_owned()].into());
    assert_eq!(of([100, 80, 0, 9]), [remote.to_owned()].into());
    assert_eq!(rules.slots().count(), 3 * 64);
}

#[test]
fn a_change_of_one_service_leaves_the_elements_of_the_others_alone() {
    let mut all = with(vec![
        service("db", 1, vec![endpoint("db", 1, None)]),
        service("cache", 2, vec![endpoint("cache", 2, None)]),
    ]);
    let before = all.rules().unwrap();
    all.learn(Names {
        version: "s-2".to_owned(),
        services: vec![service("db", 1, vec![endpoint("db", 3, None)])],
        ..Names::default()
    });
    let after = all.rules().unwrap();
    let (new, old) = after.beside(&before);
    assert_eq!((new.len(), old.len()), (1, 1));
    assert_eq!((new[0].elements.len(), old[0].elements.len()), (64, 64));
    all.learn(Names {
        version: "s-3".to_owned(),
        gone: vec![name("db")],
        ..Names::default()
    });
    assert_eq!(all.rules().unwrap().slots().count(), 64);
    assert_eq!(all.known().services.len(), 1);
    assert_eq!(all.version(), Some("s-3"));
}

fn nearest(endpoints: &[u64]) -> NamedService {
    let endpoints = endpoints.iter().map(|number| endpoint("db", *number, None));
    NamedService {
        nearest: true,
        ..service("db", 1, endpoints.collect())
    }
}

/// The last parts of the addresses that get new connections.
fn reached(all: &Services) -> BTreeSet<SocketAddrV4> {
    all.rules().unwrap().slots().map(|it| it.to).collect()
}

#[test]
fn the_nearest_endpoints_get_all_connections_while_there_are_any() {
    let far = |number: u16| SocketAddrV4::new([10, 0, 0, 2].into(), 20_000 + number);
    let near = |last: u8| SocketAddrV4::new([172, 31, 0, last].into(), 8080);
    let mut all = with(vec![nearest(&[1, 2, 3, 4])]);
    assert_eq!(reached(&all), (1..=4).map(far).collect());
    all.set_process([172, 31, 0, 7].into(), &process("db", 1, ""));
    all.set_process([172, 31, 0, 8].into(), &process("db", 2, ""));
    // One that runs here and does not answer (yet, or any more) attracts nothing.
    all.set_process([172, 31, 0, 9].into(), &process("db", 5, ""));
    assert_eq!(reached(&all), [near(7), near(8)].into());
    assert_eq!(all.rules().unwrap().slots().count(), 64);
    all.learn(learned(vec![nearest(&[2, 3, 4])]));
    assert_eq!(reached(&all), [near(8)].into());
    all.learn(learned(vec![nearest(&[3, 4])]));
    assert_eq!(reached(&all), [far(3), far(4)].into());
    all.learn(learned(vec![nearest(&[2, 3])]));
    all.learn(learned(vec![NamedService {
        nearest: false,
        ..nearest(&[2, 3])
    }]));
    assert_eq!(reached(&all), [near(8), far(3)].into());
}

#[test]
fn connections_to_endpoints_that_answer_stay_although_nearer_ones_get_the_new_ones() {
    let at = SocketAddrV4::new([100, 80, 0, 1].into(), 5432);
    let far = |number: u16| SocketAddrV4::new([10, 0, 0, 2].into(), 20_000 + number);
    let mut all = with(vec![nearest(&[3, 4])]);
    let before = all.rules().unwrap();
    all.set_process([172, 31, 0, 7].into(), &process("db", 1, ""));
    all.learn(learned(vec![nearest(&[1, 3, 4])]));
    let after = all.rules().unwrap();
    assert_eq!(connections::ended(&before, &after), []);
    // It got no new connections any more, and has some from before.
    all.learn(learned(vec![nearest(&[1, 4])]));
    let last = all.rules().unwrap();
    let gone = connections::Ended::Endpoint(Transport::Tcp, at, far(3));
    assert_eq!(connections::ended(&after, &last), [gone]);
}

#[test]
fn what_differs_is_found_among_many_services_and_nothing_else_is_looked_at() {
    let db = |number: u8| {
        let name = format!("s{number}");
        service(&name, number, vec![endpoint(&name, 1, None)])
    };
    let mut all = with((1..=200).map(db).collect());
    all.set_process(
        [172, 31, 0, 2].into(),
        &process("web", 1, "needs = [\"s7\", \"s8\"]"),
    );
    let before = all.rules().unwrap();
    let mut other = db(7);
    other.endpoints.clear();
    all.learn(Names {
        services: vec![other],
        ..Names::default()
    });
    let after = all.rules().unwrap();
    assert_ne!(before, after);
    let (new, old) = after.beside(&before);
    assert_eq!((new.len(), old.len()), (1, 1));
    assert_eq!((new[0].elements.len(), old[0].elements.len()), (0, 64));
    assert!(Arc::ptr_eq(&before.needs, &after.needs));
    all.learn(Names {
        gone: vec![name("s8")],
        ..Names::default()
    });
    let gone = all.rules().unwrap();
    let (new, old) = gone.beside(&after);
    assert_eq!((new.len(), old.len()), (0, 1));
    let (opened, closed) = gone.needs_beside(&after);
    let s8: Ipv4Addr = [100, 80, 0, 8].into();
    assert!(opened.is_empty());
    assert_eq!(closed, [([172, 31, 0, 2].into(), s8)].into());
}

/// An endpoint on another node than [`endpoint`]'s.
fn endpoint_at(last: u8, number: u64, slot: Option<u32>) -> NamedEndpoint {
    NamedEndpoint {
        ip: [10, 0, 0, last].into(),
        ..endpoint("db", number, slot)
    }
}

/// The nodes that connections to the service go to.
fn nodes(services: &Services) -> BTreeSet<Ipv4Addr> {
    let rules = services.rules().unwrap();
    rules.slots().map(|it| *it.to.ip()).collect()
}

#[test]
fn silent_nodes_get_connections_only_where_all_are_silent() {
    let two = [2, 3].map(|last| endpoint_at(last, last.into(), None));
    let mut all = with(vec![service("db", 1, two.to_vec())]);
    let [a, b] = [2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last));
    assert_eq!(all.neighbours(), [a, b].into());
    assert_eq!(nodes(&all), [a, b].into());
    all.set_silent([a].into());
    assert_eq!(nodes(&all), [b].into());
    // What the controller sends meanwhile changes nothing about it.
    all.learn(learned(vec![service("db", 2, two.to_vec())]));
    assert_eq!(nodes(&all), [b].into());
    all.set_silent([a, b].into());
    assert_eq!(nodes(&all), [a, b].into());
    all.set_silent(BTreeSet::new());
    assert_eq!(nodes(&all), [a, b].into());
}

#[test]
fn a_slot_stays_at_its_silent_node() {
    let mut db = service(
        "db",
        1,
        vec![endpoint_at(2, 1, Some(1)), endpoint_at(3, 2, Some(2))],
    );
    db.slots = [11, 12].map(|last| [100, 80, 0, last].into()).to_vec();
    let mut all = with(vec![db]);
    all.set_silent([[10, 0, 0, 2].into()].into());
    let rules = all.rules().unwrap();
    let to = |last| {
        let at = Ipv4Addr::new(100, 80, 0, last);
        let slots = rules.slots().filter(|it| it.address == at);
        slots
            .map(|it| it.to.ip().octets()[3])
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        (to(1), to(11), to(12)),
        ([3].into(), [2].into(), [3].into())
    );
}

#[test]
fn processes_of_this_node_are_never_silent() {
    let here = endpoint("db", 1, None);
    let there = endpoint_at(3, 2, None);
    let mut all = with(vec![service("db", 1, vec![here, there])]);
    all.set_process([172, 31, 0, 9].into(), &process("db", 1, ""));
    assert_eq!(all.neighbours(), [[10, 0, 0, 3].into()].into());
    // Even if this node's own address is among them.
    all.set_silent([[10, 0, 0, 2].into(), [10, 0, 0, 3].into()].into());
    assert_eq!(nodes(&all), [[172, 31, 0, 9].into()].into());
}

#[test]
fn a_leaving_process_gets_no_new_connections_and_keeps_its_own() {
    let staying = endpoint_at(2, 1, None);
    let both = vec![staying.clone(), endpoint_at(3, 2, None)];
    let mut all = with(vec![service("db", 1, both)]);
    let before = all.rules().unwrap();
    let left = |after: &ServiceRules| super::super::connections::ended(&before, after).len();
    let leaving = NamedService {
        leaving: vec![endpoint_at(3, 2, None)],
        ..service("db", 1, vec![staying.clone()])
    };
    all.learn(learned(vec![leaving.clone()]));
    let rules = all.rules().unwrap();
    assert_eq!(nodes(&all), [[10, 0, 0, 2].into()].into());
    assert_eq!(left(&rules), 0);
    // Its worker is gone, and then it is itself.
    all.set_silent([[10, 0, 0, 3].into()].into());
    assert_eq!(left(&all.rules().unwrap()), 1);
    all.set_silent(BTreeSet::new());
    all.learn(learned(vec![service("db", 1, vec![staying])]));
    assert_eq!(left(&all.rules().unwrap()), 1);
}
