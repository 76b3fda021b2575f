//! No action is executed before its records are stored.

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
use tucano_planner::{Cluster, NamesUpdate, Settings, Worker};

use super::{clock::Clock, metrics::StateLoopMetrics, *};
use crate::store::{Store, StoredAlert};

/// Records the actions.
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

impl EffectSink for Recorder {
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
    fn publish_names(&self, update: NamesUpdate) {
        self.note(format!("publish {} names", update.services.len()));
    }
    fn restart(&self, node: NodeName, _attempt: u32) {
        self.note(format!("restart {node}"));
    }
    fn alert(&self, kept: StoredAlert) {
        self.note(format!("alert {}", kept.alert.subject));
    }
    fn images_released(&self) {}
}

fn start(data_dir: &Path) -> (StateHandle, Recorder) {
    let (store, stored) = Store::open(data_dir, 1 << 30).unwrap();
    let worker = Worker {
        name: "w1".parse().unwrap(),
        ip: [127, 0, 0, 11].into(),
        labels: Default::default(),
        can_restart: false,
    };
    let clock = Clock::start();
    let recorder = Recorder::default();
    let (state, inbox) = StateHandle::channel();
    let task = StateLoop {
        cluster: Cluster::restore(
            stored.snapshot,
            vec![worker],
            Settings::default(),
            clock.now(),
        ),
        clock,
        store,
        effects: recorder.clone(),
        metrics: StateLoopMetrics::default(),
    };
    tokio::spawn(task.run(inbox, CancellationToken::new()));
    (state, recorder)
}

fn deploy(concurrency: u32) -> Event {
    let text = format!("name = \"hello\"\nconcurrency = {concurrency}\nport = 80");
    Event::ServiceConfigured {
        platforms: Default::default(),
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
            live_changes: true,
            keys: Vec::new(),
            host_paths: Vec::new(),
            volumes: None,
            generation: Generation(0),
            identity: Default::default(),
            held: None,
            metrics: NodeMetrics {
                memory_reservable: Bytes(8 << 30),
                ..NodeMetrics::default()
            },
            apis: None,
            notes: Vec::new(),
            devices: Default::default(),
            device_paths: Vec::new(),
            processes: Vec::new(),
        }),
    }
}

async fn concurrency(state: &StateHandle) -> Option<u32> {
    let name = "hello".parse().unwrap();
    let service = state
        .query(move |cluster| cluster.service(&name))
        .await
        .unwrap();
    service.map(|service| service.configured.config.concurrency)
}

#[tokio::test]
async fn a_change_that_cannot_be_stored_is_refused_entirely() {
    let directory = tempfile::tempdir().unwrap();
    let (state, recorder) = start(directory.path());
    state.observe(report()).await.unwrap();
    state.apply(deploy(1)).await.unwrap();
    assert!(recorder.has("assign 1 processes to w1"));

    // Another connection holds the write lock.
    let other = Connection::open(directory.path().join("state.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = state.apply(deploy(3)).await.unwrap_err();
    assert!(matches!(refused, Refused::Store(_)), "{refused}");
    assert_eq!(concurrency(&state).await, Some(1));
    assert!(!recorder.has("assign 3"));

    other.execute_batch("ROLLBACK").unwrap();
    state.apply(deploy(3)).await.unwrap();
    assert_eq!(concurrency(&state).await, Some(3));
    assert!(recorder.has("assign 3 processes to w1"));
}

#[tokio::test]
async fn actions_of_observed_events_are_pending_until_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (state, recorder) = start(directory.path());
    state.apply(deploy(2)).await.unwrap();
    assert!(!recorder.has("assign"));

    let other = Connection::open(directory.path().join("state.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The first report lets both processes be placed: no desired set may leave before that is stored.
    state.observe(report()).await.unwrap();
    assert!(!recorder.has("assign"));
    assert!(matches!(
        state.apply(deploy(5)).await,
        Err(Refused::Store(_))
    ));
    assert_eq!(concurrency(&state).await, Some(2));

    let mut changes = state.changes();
    changes.borrow_and_update();
    other.execute_batch("ROLLBACK").unwrap();
    while !recorder.has("assign 2 processes to w1") {
        changes.changed().await.unwrap();
    }
    state.apply(deploy(5)).await.unwrap();
    assert_eq!(concurrency(&state).await, Some(5));
}

#[tokio::test]
async fn a_rejected_change_returns_the_callers_error() {
    let directory = tempfile::tempdir().unwrap();
    let (state, _) = start(directory.path());
    let before = *state.changes().borrow();
    let rejected = state
        .transact(|_| Err::<(Event, ()), _>("not today"), |_, ()| ())
        .await;
    assert!(matches!(
        rejected,
        Err(TransactError::Rejected("not today"))
    ));
    assert_eq!(*state.changes().borrow(), before);
}
