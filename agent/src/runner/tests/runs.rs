//! Processes of runs: they end, are reported, and never start again.

use tucano_api::jobs::{DesiredRun, Trigger};

use super::*;

fn of_run(may_start: bool) -> DesiredProcess {
    let config = parse("a", "name = \"a\"\nkind = \"job\"\nstop_timeout = \"20ms\"").unwrap();
    DesiredProcess {
        config,
        run: Some(DesiredRun {
            number: 1,
            task: 1,
            trigger: Trigger::Request,
            may_start,
        }),
        ..process(1)
    }
}

async fn ended(setup: &Setup) -> ProcessReport {
    setup.wait_for_state(ProcessState::Ended).await
}

#[tokio::test]
async fn it_stays_ended_with_its_exit_and_its_last_lines_until_it_is_not_desired() {
    let mut setup = Setup::start();
    let process = of_run(true);
    setup.desire(1, vec![process.clone()]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(1));
    assert_eq!(setup.next_call().await, Call::Pull(process.image.clone()));
    assert_eq!(setup.next_call().await, Call::Launch(process.id.clone()));
    setup.node.probed(&process.id, Health::Healthy).await;
    setup.wait_for_state(ProcessState::Healthy).await;
    assert!(setup.node.record(&process.id).unwrap().begun);
    setup.node.end(&process.id, 3);
    let report = ended(&setup).await;
    assert_eq!(report.last_exit.unwrap().code, Some(3));
    assert_eq!(report.last_lines, [format!("{} has ended", process.id)]);
    // The controller tells that it knows of the start, and only then of the end.
    setup.desire(2, vec![of_run(false)]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    setup.desire(3, Vec::new()).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(3));
    assert_eq!(setup.next_call().await, Call::Remove(process.id));
}

#[tokio::test]
async fn one_that_cannot_be_started_has_ended_and_one_whose_image_is_away_has_not() {
    let setup = Setup::start();
    setup.node.set_failing("pull", true);
    setup.desire(1, vec![of_run(true)]).await;
    let report = setup.wait_for_state(ProcessState::BackOff).await;
    assert_eq!(report.reason.as_deref(), Some("pull fails"));
    setup.node.set_failing("launch", true);
    setup.node.set_failing("pull", false);
    let report = ended(&setup).await;
    assert_eq!(report.reason.as_deref(), Some("launch fails"));
    assert_eq!((report.started_at, report.last_exit), (None, None));
}

#[tokio::test]
async fn one_that_the_agent_has_forgotten_is_not_started() {
    let mut setup = Setup::start();
    setup.desire(1, vec![of_run(false)]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(1));
    let report = ended(&setup).await;
    let exit = report.last_exit.unwrap();
    assert_eq!((exit.code, exit.signal), (None, None));
    setup.desire(2, Vec::new()).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    assert_eq!(setup.next_call().await, Call::Remove(of_run(false).id));
}

#[tokio::test]
async fn the_next_agent_does_not_start_it_again() {
    let mut setup = Setup::start_with(|_| InitialState {
        adopted: vec![Process::adopted(
            Record {
                begun: true,
                ..Record::new(of_run(true))
            },
            Phase::Ended {
                restart_at: Duration::ZERO,
            },
        )],
        desired: Some(set(1, vec![of_run(true)])),
        ..initial()
    });
    ended(&setup).await;
    setup.desire(2, vec![of_run(true)]).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(2));
    setup.desire(3, Vec::new()).await;
    assert_eq!(setup.next_call().await, Call::StoreDesired(3));
    assert_eq!(setup.next_call().await, Call::Remove(of_run(true).id));
}
