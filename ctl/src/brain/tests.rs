//! Nothing leaves before it is stored.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;
use tucano_api::{
    agent::{DesiredSet, NodeMetrics, NodeReport},
    ids::{Generation, NodeName},
    routes::ServiceRoute,
    settings::parse,
    units::Bytes,
};
use tucano_planner::{Cluster, Settings, Worker};

use super::{clock::Clock, metrics::BrainMetrics, *};
use crate::store::{KeptAlert, Store};

/// Writes down what it is to do.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn has(&self, what: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains(what))
    }
}

impl Effects for Recorder {
    fn assign(&self, set: DesiredSet) {
        self.note(format!(
            "assign {} processes to {}",
            set.processes.len(),
            set.node
        ));
    }
    fn publish(&self, routes: Vec<ServiceRoute>) {
        self.note(format!("publish {} routes", routes.len()));
    }
    fn restart(&self, node: NodeName, _attempt: u32) {
        self.note(format!("restart {node}"));
    }
    fn alert(&self, kept: KeptAlert) {
        self.note(format!("alert {}", kept.alert.subject));
    }
    fn images_released(&self) {}
}

fn start(data_dir: &Path) -> (Brain, Recorder) {
    let (store, stored) = Store::open(data_dir, 1 << 30).unwrap();
    let worker = Worker {
        name: "w1".parse().unwrap(),
        ip: [127, 0, 0, 11].into(),
        can_restart: false,
    };
    let clock = Clock::start();
    let recorder = Recorder::default();
    let (brain, inbox) = Brain::channel();
    let actor = Actor {
        cluster: Cluster::restore(
            stored.snapshot,
            vec![worker],
            Settings::default(),
            clock.now(),
        ),
        clock,
        store,
        effects: recorder.clone(),
        metrics: BrainMetrics::default(),
    };
    tokio::spawn(actor.run(inbox, CancellationToken::new()));
    (brain, recorder)
}

fn deploy(concurrency: u32) -> Event {
    let text = format!("name = \"hello\"\nconcurrency = {concurrency}\nport = 80");
    Event::ServiceConfigured {
        config: Box::new(parse("x", &text).unwrap()),
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
    }
}

fn report() -> Event {
    Event::NodeReported {
        node: "w1".parse().unwrap(),
        report: Box::new(NodeReport {
            node: None,
            ip: [127, 0, 0, 11].into(),
            agent_port: 7071,
            agent_id: "a".into(),
            sequence: 1,
            version: "0".into(),
            architecture: "amd64".into(),
            generation: Generation(0),
            metrics: NodeMetrics {
                memory_reservable: Bytes(8 << 30),
                ..NodeMetrics::default()
            },
            apis: None,
            notes: Vec::new(),
            processes: Vec::new(),
        }),
    }
}

async fn concurrency(brain: &Brain) -> Option<u32> {
    let name = "hello".parse().unwrap();
    let service = brain
        .query(move |cluster| cluster.service(&name))
        .await
        .unwrap();
    service.map(|service| service.configured.config.concurrency)
}

#[tokio::test]
async fn a_change_that_cannot_be_stored_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (brain, recorder) = start(directory.path());
    brain.note(report()).await.unwrap();
    brain.apply(deploy(1)).await.unwrap();
    assert!(recorder.has("assign 1 processes to w1"));

    // Somebody else writes, and does not end.
    let other = Connection::open(directory.path().join("state.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = brain.apply(deploy(3)).await.unwrap_err();
    assert!(matches!(refused, Refused::Store(_)), "{refused}");
    assert_eq!(concurrency(&brain).await, Some(1));
    assert!(!recorder.has("assign 3"));

    other.execute_batch("ROLLBACK").unwrap();
    brain.apply(deploy(3)).await.unwrap();
    assert_eq!(concurrency(&brain).await, Some(3));
    assert!(recorder.has("assign 3 processes to w1"));
}

#[tokio::test]
async fn what_happens_by_itself_is_held_back_until_it_can_be_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (brain, recorder) = start(directory.path());
    brain.apply(deploy(2)).await.unwrap();
    assert!(!recorder.has("assign"));

    let other = Connection::open(directory.path().join("state.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The first report lets both processes be placed: nobody may hear of that before it is stored.
    brain.note(report()).await.unwrap();
    assert!(!recorder.has("assign"));
    assert!(matches!(
        brain.apply(deploy(5)).await,
        Err(Refused::Store(_))
    ));
    assert_eq!(concurrency(&brain).await, Some(2));

    let mut changes = brain.changes();
    changes.borrow_and_update();
    other.execute_batch("ROLLBACK").unwrap();
    while !recorder.has("assign 2 processes to w1") {
        changes.changed().await.unwrap();
    }
    brain.apply(deploy(5)).await.unwrap();
    assert_eq!(concurrency(&brain).await, Some(5));
}

#[tokio::test]
async fn a_caller_that_decides_against_a_change_gets_its_own_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (brain, _) = start(directory.path());
    let before = *brain.changes().borrow();
    let rejected = brain
        .transact(|_| Err::<(Event, ()), _>("not today"), |_, ()| ())
        .await;
    assert!(matches!(
        rejected,
        Err(TransactError::Rejected("not today"))
    ));
    assert_eq!(*brain.changes().borrow(), before);
}
