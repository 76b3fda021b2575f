use tucano_api::units::{Bytes, Span};

use tucano_simulator::{Options, Sim, config, node, with_memory, workers};

fn small(workers_count: usize, reservable: Bytes) -> Sim {
    Sim::with(Options {
        workers: workers(workers_count),
        reservable,
        ..Options::default()
    })
}

#[test]
fn seven_processes_on_three_workers_are_spread_three_two_two() {
    let mut sim = Sim::new(3);
    sim.serve(config("hello", 7));
    assert_eq!(sim.spread("hello"), [3, 2, 2]);
    assert_eq!(sim.routed("hello").len(), 7);
}

#[test]
fn the_rotation_continues_across_services() {
    let mut sim = Sim::new(3);
    sim.serve(config("a", 1));
    sim.serve(config("b", 1));
    sim.serve(config("c", 2));
    assert_eq!(sim.spread("a"), [1, 0, 0]);
    assert_eq!(sim.spread("b"), [0, 1, 0]);
    assert_eq!(sim.spread("c"), [1, 0, 1]);
}

#[test]
fn the_rotation_survives_a_restart_of_the_controller() {
    let mut sim = Sim::new(3);
    sim.serve(config("a", 2));
    sim.restart_controller();
    sim.run(Span::secs(2));
    sim.serve(config("b", 1));
    assert_eq!(sim.spread("b"), [0, 0, 1]);
}

#[test]
fn scaling_up_fills_the_workers_with_the_fewest() {
    let mut sim = Sim::new(3);
    sim.serve(config("a", 1));
    sim.serve(config("b", 1));
    sim.serve(config("a", 5));
    assert_eq!(sim.spread("a"), [2, 1, 2]);
}

#[test]
fn a_process_that_does_not_fit_is_pending_with_the_reason() {
    let mut sim = small(2, Bytes::mib(600));
    sim.deploy(config("hello", 5));
    sim.run(Span::secs(3));
    assert_eq!(sim.spread("hello"), [2, 2]);
    let pending = sim.service("hello").active.pending;
    assert_eq!(pending[0].count, 1);
    assert_eq!(
        pending[0].reason,
        "no worker has 256 MiB of memory left to reserve (w1: 88 MiB free of 600 MiB, w2: 88 MiB free of 600 MiB)"
    );
}

#[test]
fn a_full_worker_is_left_out_of_the_spread() {
    let mut sim = Sim::new(3);
    sim.agent(1).metrics.memory_reservable = Bytes::mib(300);
    sim.run(Span::secs(2));
    sim.serve(config("hello", 7));
    assert_eq!(sim.spread("hello"), [1, 3, 3]);
}

#[test]
fn pending_processes_are_placed_when_memory_becomes_free() {
    let mut sim = small(1, Bytes::mib(600));
    sim.serve(config("first", 2));
    sim.deploy(config("second", 2));
    sim.run(Span::secs(2));
    assert_eq!(sim.spread("second"), [0]);
    sim.remove("first");
    sim.until_settled("second");
}

#[test]
fn pending_processes_are_placed_when_a_worker_gets_more_memory() {
    let mut sim = small(1, Bytes::mib(300));
    sim.deploy(config("hello", 3));
    sim.run(Span::secs(2));
    assert_eq!(sim.spread("hello"), [1]);
    sim.agent(1).metrics.memory_reservable = Bytes::mib(800);
    sim.until_settled("hello");
}

#[test]
fn a_draining_process_keeps_its_memory_until_it_is_stopped() {
    let mut sim = small(1, Bytes::mib(600));
    sim.serve(config("first", 2));
    sim.deploy(config("first", 1));
    sim.deploy(config("second", 1));
    assert_eq!(sim.spread("second"), [0], "its room is still taken");
    sim.until_settled("second");
    assert_eq!(sim.spread("first"), [1]);
}

#[test]
fn memory_is_reserved_until_the_agent_reports_the_process_gone() {
    let mut sim = small(1, Bytes::mib(600));
    sim.serve(config("first", 2));
    sim.remove("first");
    sim.deploy(config("second", 2));
    assert_eq!(sim.spread("second"), [0], "both still run");
    assert_eq!(sim.cluster().reserved(&node(1)), 512 << 20);
    sim.until_settled("second");
}

#[test]
fn memory_stays_reserved_after_a_restart_of_the_controller() {
    let mut sim = small(1, Bytes::mib(600));
    sim.serve(config("first", 2));
    sim.remove("first");
    sim.restart_controller();
    sim.deploy(config("second", 2));
    sim.until_settled("second");
}

#[test]
fn redeploys_in_quick_succession_never_exceed_the_memory() {
    let mut sim = small(1, Bytes::mib(600));
    sim.serve(with_memory("hello", 1, 500));
    for image in [2, 3, 4] {
        sim.deploy_image(with_memory("hello", 1, 500), image);
        sim.run(Span::millis(1700));
    }
    sim.until_settled("hello");
}

#[test]
fn the_reasons_name_at_most_five_workers() {
    let mut sim = small(7, Bytes::mib(100));
    sim.deploy(config("hello", 1));
    sim.run(Span::secs(1));
    let reason = &sim.service("hello").active.pending[0].reason;
    assert!(
        reason.contains("w5: 100 MiB free of 100 MiB and 2 more)"),
        "{reason}"
    );
}

#[test]
fn without_an_alive_worker_the_reason_says_so() {
    let mut sim = Sim::new(0);
    sim.deploy(config("hello", 1));
    assert_eq!(
        sim.service("hello").active.pending[0].reason,
        "the topology has no worker"
    );
    let mut sim = Sim::new(1);
    sim.agent(1).cut_power();
    sim.run(Span::secs(5));
    sim.deploy(config("hello", 2));
    let pending = sim.service("hello").active.pending;
    assert_eq!(
        (pending[0].count, pending[0].reason.as_str()),
        (2, "no worker is alive")
    );
}

#[test]
fn nothing_is_placed_before_every_worker_had_a_lease_to_report() {
    let mut sim = Sim::unreported(Options::default());
    sim.agent(3).cut_power();
    sim.deploy(config("hello", 4));
    sim.run(Span::secs(1));
    assert_eq!(sim.spread("hello"), [0, 0, 0]);
    let pending = sim.service("hello").active.pending;
    assert_eq!(pending[0].count, 4);
    assert_eq!(
        pending[0].reason,
        "the controller has just started and waits for reports of w3"
    );
    sim.until_settled("hello");
    assert_eq!(sim.spread("hello"), [2, 2, 0]);
}

#[test]
fn a_desired_set_names_each_process_with_its_image_and_configuration() {
    let mut sim = Sim::new(1);
    sim.deploy(with_memory("hello", 2, 64));
    let set = sim.cluster().desired_set(&node(1)).unwrap();
    let ids: Vec<&str> = set
        .processes
        .iter()
        .map(|process| process.id.as_str())
        .collect();
    assert_eq!(ids, ["hello-1", "hello-2"]);
    assert_eq!(set.processes[0].config, with_memory("hello", 2, 64));
    assert_eq!(set.processes[0].image, tucano_simulator::image(1));
}
