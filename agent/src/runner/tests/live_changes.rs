//! Changes that a running process takes.

use tucano_api::units::Bytes;

use super::*;

const MIB: u64 = 1 << 20;

/// Process 1 in a later revision, with other settings.
fn changed(revision: u64, change: impl FnOnce(&mut DesiredProcess)) -> DesiredProcess {
    let mut changed = process(1);
    changed.revision = Revision(revision);
    change(&mut changed);
    changed
}

fn with_memory(revision: u64, mib: u64) -> DesiredProcess {
    changed(revision, |process| process.config.memory = Bytes::mib(mib))
}

fn with_probe(revision: u64, path: &str) -> DesiredProcess {
    changed(revision, |process| {
        process.config.health.http = Some(path.to_owned());
    })
}

async fn wait_for_revision(setup: &Setup, revision: u64) -> ProcessReport {
    let has = |snapshot: &Snapshot| snapshot.processes[0].revision == Revision(revision);
    setup.wait_for(has).await.processes.remove(0)
}

async fn wait_for_reason(setup: &Setup, part: &str) -> ProcessReport {
    let has = |snapshot: &Snapshot| {
        let reason = snapshot.processes[0].reason.as_ref();
        reason.is_some_and(|reason| reason.contains(part))
    };
    setup.wait_for(has).await.processes.remove(0)
}

#[tokio::test]
async fn a_changed_limit_is_written_recorded_and_reported_and_restarts_nothing() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.desire(2, vec![with_memory(2, 64)]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::Resize(id.clone(), 64 * MIB));
    let report = wait_for_revision(&setup, 2).await;
    assert_eq!((report.state, report.restarts), (ProcessState::Healthy, 0));
    let record = setup.node.record(&id).unwrap();
    assert_eq!(record.process, with_memory(2, 64));
    // A container that is started again has the new limit.
    setup.node.end(&id, 1);
    assert_eq!(setup.next_call().await, Call::Pull(process(1).image));
}

#[tokio::test]
async fn a_refused_limit_is_a_reason_and_the_earlier_revision_stays() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.set_failing("resize", true);
    setup.desire(2, vec![with_memory(2, 64)]).await;
    let report = wait_for_reason(&setup, "its limits are not changed yet: resize fails").await;
    assert_eq!(
        (report.state, report.revision),
        (ProcessState::Healthy, Revision(1))
    );
    assert_eq!(
        setup.node.record(&id).unwrap().process.config.memory,
        process(1).config.memory
    );
    // The earlier limit again, in a revision of its own.
    setup.node.set_failing("resize", false);
    setup.desire(3, vec![changed(3, |_| {})]).await;
    let report = wait_for_revision(&setup, 3).await;
    assert_eq!(report.reason, None);
}

#[tokio::test]
async fn the_next_agent_completes_a_change_of_limits() {
    let mut setup = Setup::start_with(|node| {
        node.add_container(&process(1).id);
        InitialState {
            adopted: vec![adopted(1)],
            desired: Some(set(7, vec![with_memory(2, 64)])),
            ..initial()
        }
    });
    assert_eq!(
        setup.next_call().await,
        Call::Resize(process(1).id, 64 * MIB)
    );
    wait_for_revision(&setup, 2).await;
    assert_eq!(setup.node.running(), [process(1).id]);
}

#[tokio::test]
async fn a_new_probe_is_used_once_the_process_answers_it() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.desire(2, vec![with_probe(2, "/new")]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::TryProbe(id.clone()));
    setup.node.trial_ends(&id, Err("status 404")).await;
    let report = wait_for_reason(&setup, "not probed in the new way yet: status 404").await;
    assert_eq!(
        (report.state, report.revision),
        (ProcessState::Healthy, Revision(1))
    );
    setup.node.trial_ends(&id, Ok(())).await;
    let report = wait_for_revision(&setup, 2).await;
    assert_eq!((report.reason, report.restarts), (None, 0));
    assert_eq!(
        setup.node.record(&id).unwrap().process,
        with_probe(2, "/new")
    );
    let probed = setup
        .node
        .probed_by(&id)
        .unwrap()
        .process
        .config
        .health
        .http;
    assert_eq!(probed.as_deref(), Some("/new"));
}

#[tokio::test]
async fn a_probe_that_is_taken_back_is_not_used_when_its_answer_comes_late() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.desire(2, vec![with_probe(2, "/new")]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::TryProbe(id.clone()));
    setup.desire(3, vec![changed(3, |_| {})]).await;
    wait_for_revision(&setup, 3).await;
    setup.node.trial_ends(&id, Ok(())).await;
    setup.node.trial_ends(&id, Err("late")).await;
    setup.node.disk_used(&id, 1).await;
    let measured = |snapshot: &Snapshot| snapshot.processes[0].disk_used == Some(Bytes(1));
    let report = setup.wait_for(measured).await.processes.remove(0);
    assert_eq!((report.revision, report.reason), (Revision(3), None));
}

#[tokio::test]
async fn an_unhealthy_process_gets_its_new_probe_at_once() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.probed(&id, Health::Unhealthy).await;
    setup.wait_for_state(ProcessState::Unhealthy).await;
    setup.desire(2, vec![with_probe(2, "/new")]).await;
    wait_for_revision(&setup, 2).await;
    setup.node.probed(&id, Health::Healthy).await;
    setup.wait_for_state(ProcessState::Healthy).await;
}

#[tokio::test]
async fn a_lower_disk_limit_holds_for_what_was_measured_before() {
    let mut setup = Setup::start();
    let id = setup.run_one().await;
    setup.node.disk_used(&id, 900 << 10).await;
    let lower = changed(2, |process| process.config.disk = Bytes(800 << 10));
    let measured = |snapshot: &Snapshot| snapshot.processes[0].disk_used.is_some();
    setup.wait_for(measured).await;
    setup.desire(2, vec![lower]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::Kill(id));
}
