use std::time::Duration;

use super::*;
use crate::limits::Limits;

const NOW: Uptime = Duration::from_secs(1);

fn endpoint(number: u16, node: &str) -> Endpoint {
    Endpoint {
        process: format!("hello-{number}").parse().unwrap(),
        node: node.parse().unwrap(),
        address: ([127, 0, 0, 1], number).into(),
        weight: 1,
        draining: false,
    }
}

fn table(endpoints: Vec<Endpoint>, previous: &Table) -> Table {
    let service = ServiceRoute {
        service: "hello".parse().unwrap(),
        hosts: vec!["Hello.localhost".to_owned()],
        path_prefix: None,
        endpoints,
    };
    let routes = RouteTable {
        version: "1".to_owned(),
        services: vec![service],
    };
    Table::compile(routes, previous, 1)
}

fn hello(table: &Table) -> &Service {
    &table.services()[table.find(b"hello.localhost", b"/").unwrap()]
}

/// The ports of the next `count` choices.
fn choices(table: &Table, count: usize) -> Vec<u16> {
    let (service, mut choice) = (hello(table), Choice::default());
    (0..count)
        .filter_map(|_| choice.choose(service, NOW, &[]))
        .map(|place| service.members()[place].backend.address.port())
        .collect()
}

#[test]
fn a_process_keeps_its_state_across_tables() {
    let first = table(vec![endpoint(1, "a"), endpoint(2, "b")], &Table::default());
    first
        .backends()
        .next()
        .unwrap()
        .health
        .eject(NOW, &Limits::default());
    let second = table(
        vec![endpoint(1, "a"), endpoint(2, "b"), endpoint(3, "c")],
        &first,
    );
    assert_eq!(choices(&second, 4), [2, 3, 2, 3]);
    assert_eq!(first.lost_in(&second).count(), 0);
}

#[test]
fn a_process_with_a_new_address_is_a_new_backend() {
    let first = table(vec![endpoint(1, "a")], &Table::default());
    let mut moved = endpoint(1, "a");
    moved.address.set_port(9);
    let second = table(vec![moved], &first);
    assert_eq!(choices(&second, 1), [9]);
    assert_eq!(first.lost_in(&second).count(), 1);
}

#[test]
fn a_draining_process_that_leaves_is_not_lost() {
    let mut draining = endpoint(1, "a");
    draining.draining = true;
    let first = table(vec![draining, endpoint(2, "b")], &Table::default());
    let second = table(Vec::new(), &first);
    let lost: Vec<u16> = first
        .lost_in(&second)
        .map(|one| one.address.port())
        .collect();
    assert_eq!(lost, [2]);
}

#[test]
fn failed_processes_are_excluded_and_their_nodes_come_last() {
    let endpoints = vec![endpoint(1, "a"), endpoint(2, "a"), endpoint(3, "b")];
    let table = table(endpoints, &Table::default());
    let (service, mut choice) = (hello(&table), Choice::default());
    let mut tried = vec![table.backends().next().unwrap().clone()];
    for port in [3, 2] {
        let place = choice.choose(service, NOW, &tried).unwrap();
        let next = &service.members()[place].backend;
        assert_eq!(next.address.port(), port);
        tried.push(next.clone());
    }
    assert!(choice.choose(service, NOW, &tried).is_none());
}

#[test]
fn if_all_are_ejected_all_are_tried() {
    let table = table(vec![endpoint(1, "a"), endpoint(2, "b")], &Table::default());
    for backend in table.backends() {
        backend.health.eject(NOW, &Limits::default());
    }
    assert_eq!(choices(&table, 4), [1, 2, 1, 2]);
}

#[test]
fn weights_are_clamped() {
    let mut endpoints = vec![endpoint(1, "a"), endpoint(2, "b")];
    (endpoints[0].weight, endpoints[1].weight) = (0, 1_000_000);
    let chosen = choices(&table(endpoints, &Table::default()), 101);
    assert_eq!(chosen.iter().filter(|port| **port == 1).count(), 1);
}

#[test]
fn a_rotation_continues_with_the_next_table() {
    let endpoints = vec![endpoint(1, "a"), endpoint(2, "b"), endpoint(3, "c")];
    let first = table(endpoints.clone(), &Table::default());
    let mut choice = Choice::default();
    choice.choose(hello(&first), NOW, &[]);
    let second = table(endpoints, &first);
    let mut carried = Choice::carried(Some((&choice, hello(&first))), hello(&second), 0);
    assert_eq!(carried.choose(hello(&second), NOW, &[]), Some(1));
}

#[test]
fn threads_begin_with_different_processes() {
    let endpoints = vec![endpoint(1, "a"), endpoint(2, "b"), endpoint(3, "c")];
    let table = table(endpoints, &Table::default());
    for (turn, first) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
        let mut choice = Choice::carried(None, hello(&table), turn);
        assert_eq!(choice.choose(hello(&table), NOW, &[]), Some(first));
    }
}
