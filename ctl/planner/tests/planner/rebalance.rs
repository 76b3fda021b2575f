use tucano_api::units::{Bytes, Span};

use tucano_simulator::{Sim, config, image};

/// Two workers with all the processes, and a third one that has just come back.
fn uneven() -> Sim {
    let mut sim = Sim::new(3);
    sim.agent(3).cut_power();
    sim.run(Span::secs(3));
    sim.serve(config("hello", 6));
    sim.agent(3).power_on();
    sim.run(Span::millis(300));
    assert_eq!(sim.spread("hello"), [3, 3, 0]);
    sim
}

#[test]
fn processes_move_to_a_new_worker_once_the_workers_have_been_stable() {
    let mut sim = uneven();
    sim.run(Span::secs(4));
    assert_eq!(sim.spread("hello"), [3, 3, 0], "not yet");
    sim.until("it is even", |sim| {
        assert_eq!(sim.routed("hello").len(), 6, "all the time");
        assert!(
            sim.ids("hello").len() <= 8,
            "one moves while at most the last one drains"
        );
        sim.spread("hello") == [2, 2, 2]
    });
    sim.until_settled("hello");
}

#[test]
fn a_difference_of_one_is_not_rebalanced() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 7));
    let before = sim.ids("hello");
    sim.run(Span::secs(60));
    assert_eq!(sim.ids("hello"), before);
}

#[test]
fn nothing_moves_while_a_process_is_not_healthy() {
    let mut sim = uneven();
    sim.workloads.crashing.insert(image(1));
    let id = sim.ids("hello")[0].clone();
    let now = sim.now;
    for agent in sim.agents.values_mut() {
        agent.oom_kill(&id, now);
    }
    sim.run(Span::secs(30));
    assert_eq!(sim.spread("hello"), [3, 3, 0]);
}

#[test]
fn nothing_moves_to_a_worker_without_memory_until_it_has_some() {
    let mut sim = uneven();
    sim.agent(3).metrics.memory_reservable = Bytes::mib(100);
    sim.run(Span::secs(30));
    assert_eq!(sim.spread("hello"), [3, 3, 0]);
    sim.agent(3).metrics.memory_reservable = Bytes::mib(4000);
    sim.until("it is even", |sim| sim.spread("hello") == [2, 2, 2]);
}

#[test]
fn an_unhealthy_replacement_replaces_nothing() {
    let mut sim = uneven();
    sim.workloads.unresponsive.insert(image(1));
    sim.run(Span::secs(30));
    assert_eq!(sim.routed("hello").len(), 6);
    assert_eq!(sim.spread("hello"), [3, 3, 1]);
    let replacement = sim
        .disk
        .processes
        .iter()
        .find(|p| p.replaces.is_some())
        .unwrap()
        .id
        .clone();
    sim.deploy(config("hello", 5));
    assert!(
        !sim.ids("hello").contains(&replacement),
        "it is removed first"
    );
    assert_eq!(sim.routed("hello").len(), 5);
}

#[test]
fn a_replacement_becomes_ordinary_when_the_process_it_was_to_replace_is_lost() {
    let mut sim = uneven();
    sim.until("one moves", |sim| sim.ids("hello").len() == 7);
    let replaced = sim
        .disk
        .processes
        .iter()
        .find_map(|p| p.replaces.clone())
        .unwrap();
    let lost = sim.cluster().node_of(&replaced).unwrap().clone();
    sim.agents.get_mut(&lost).unwrap().cut_power();
    sim.until("the worker is lost", |sim| {
        sim.cluster().node(&lost).unwrap().alive.is_none()
    });
    sim.until_settled("hello");
    assert!(
        sim.disk
            .processes
            .iter()
            .all(|process| process.replaces.is_none())
    );
}

#[test]
fn a_move_continues_after_a_restart_of_the_controller() {
    let mut sim = uneven();
    sim.until("one moves", |sim| sim.ids("hello").len() == 7);
    sim.restart_controller();
    sim.until("it is even", |sim| sim.spread("hello") == [2, 2, 2]);
    sim.until_settled("hello");
}

#[test]
fn every_uneven_service_is_rebalanced() {
    let mut sim = Sim::new(2);
    sim.agent(2).cut_power();
    sim.run(Span::secs(3));
    for service in ["a", "b", "c"] {
        sim.serve(config(service, 4));
    }
    sim.agent(2).power_on();
    sim.until("all are even", |sim| {
        ["a", "b", "c"]
            .iter()
            .all(|name| sim.spread(name) == [2, 2])
    });
}

#[test]
fn services_of_one_process_move_to_a_returned_worker() {
    let mut sim = Sim::new(3);
    sim.agent(1).cut_power();
    sim.run(Span::secs(3));
    let names: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    for name in &names {
        sim.serve(config(name, 1));
    }
    sim.agent(1).power_on();
    let totals = |sim: &Sim| -> Vec<usize> {
        let sets = sim
            .workers
            .iter()
            .map(|it| sim.cluster().desired_set(&it.name));
        sets.map(|set| set.unwrap().processes.len()).collect()
    };
    sim.until("they are even", |sim| {
        for name in &names {
            assert_eq!(sim.routed(name).len(), 1, "all the time");
        }
        assert!(totals(sim).iter().sum::<usize>() <= 13, "one at a time");
        totals(sim) == [4, 4, 4]
    });
    let before: Vec<_> = names.iter().flat_map(|name| sim.ids(name)).collect();
    sim.run(Span::secs(60));
    let after: Vec<_> = names.iter().flat_map(|name| sim.ids(name)).collect();
    assert_eq!(after, before, "and nothing moves any more");
}

#[test]
fn an_uneven_mixture_of_services_becomes_even_without_loss() {
    let mut sim = Sim::new(3);
    sim.agent(3).cut_power();
    sim.run(Span::secs(3));
    for (service, concurrency) in [("a", 1), ("b", 2), ("c", 1), ("d", 4), ("e", 1)] {
        sim.serve(config(service, concurrency));
    }
    sim.agent(3).power_on();
    sim.run(Span::secs(60));
    for service in ["a", "b", "c", "d", "e"] {
        let spread = sim.spread(service);
        assert!(
            spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1,
            "{spread:?}"
        );
    }
    let sets = sim
        .workers
        .iter()
        .map(|it| sim.cluster().desired_set(&it.name));
    let totals: Vec<usize> = sets.map(|set| set.unwrap().processes.len()).collect();
    assert_eq!(totals, [3, 3, 3]);
}
