//! Alerts are delivered once per change of state, also to a webhook with outages.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use tucano_api::state::{Alert, AlertKind};

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
};

/// Accepts alerts after a number of refusals.
#[derive(Default)]
struct Webhook {
    taken: Mutex<Vec<Alert>>,
    refusals: AtomicUsize,
}

async fn take(State(hook): State<Arc<Webhook>>, Json(alert): Json<Alert>) -> StatusCode {
    let left = hook
        .refusals
        .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
    if left.is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    hook.taken.lock().unwrap().push(alert);
    StatusCode::OK
}

async fn listen(refusals: usize) -> (Arc<Webhook>, String) {
    let hook = Arc::new(Webhook {
        refusals: refusals.into(),
        ..Webhook::default()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/hook", post(take))
        .with_state(hook.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (hook, url)
}

fn kinds(hook: &Webhook) -> Vec<AlertKind> {
    hook.taken
        .lock()
        .unwrap()
        .iter()
        .map(|alert| alert.kind)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_node_is_delivered_once_in_order() {
    let (hook, url) = listen(2).await;
    let nobody = "http://127.0.0.1:9/hook";
    let tables = format!("[alerts]\nwebhooks = [\"{nobody}\", \"{url}\"]");
    let mut ctl = Ctl::start(&config(1, "lease = \"300ms\"", &tables)).await;
    let agent = Agent::start(&ctl, 1).await;
    ctl.eventually("the worker", async |ctl| {
        (ctl.get("/v1/alive_nodes/w1").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(kinds(&hook), []);
    agent.cut_off(true);
    ctl.eventually("its death", async |ctl| {
        (ctl.get("/v1/dead_nodes/w1").await.status == 200).then_some(())
    })
    .await;
    agent.cut_off(false);
    ctl.eventually("all alerts", async |_| {
        kinds(&hook).contains(&AlertKind::NodeBack).then_some(())
    })
    .await;
    let told = kinds(&hook);
    assert_eq!(
        told,
        [
            AlertKind::NodeMissing,
            AlertKind::NodeDead,
            AlertKind::NodeBack
        ]
    );
    assert_eq!(hook.taken.lock().unwrap()[0].subject, "w1");
    assert!(ctl.log().contains("alert: "), "{}", ctl.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_webhook_delays_nothing_else() {
    let limits = "[limits]\nwebhook_attempts = 1\nwebhook_timeout = \"100ms\"\n[alerts]\nwebhooks = [\"http://127.0.0.1:9/\"]";
    let mut ctl = Ctl::start(&config(1, "lease = \"200ms\"", limits)).await;
    ctl.eventually("the loss", async |ctl| {
        let metrics = ctl.get("/metrics").await.expect(200);
        let lost = metrics
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("tucano_alerts_lost_total "))?;
        (lost.parse::<u32>().unwrap() > 0).then_some(())
    })
    .await;
    assert!(
        ctl.log().contains("could not be delivered"),
        "{}",
        ctl.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_alerts_survive_kill_9() {
    let (hook, url) = listen(usize::MAX).await;
    let tables = format!("[alerts]\nwebhooks = [\"{url}\"]");
    let patient = format!("[limits]\nwebhook_attempts = 100\n{tables}");
    let mut ctl = Ctl::start(&config(1, "lease = \"200ms\"", &patient)).await;
    ctl.eventually("a try", async |_| {
        (hook.refusals.load(SeqCst) < usize::MAX).then_some(())
    })
    .await;
    assert_eq!(ctl.get("/v1/dead_nodes/w1").await.status, 200);
    ctl.kill_9().await;
    hook.refusals.store(0, SeqCst);
    ctl.start_again().await;
    let dead = |hook: &Webhook| {
        let kinds = kinds(hook);
        kinds
            .iter()
            .filter(|kind| **kind == AlertKind::NodeDead)
            .count()
    };
    ctl.eventually("the alert", async |_| (dead(&hook) > 0).then_some(()))
        .await;
    // It is delivered and no longer stored.
    let database = ctl.path("data/state.sqlite3");
    ctl.eventually("nothing kept", async |_| {
        let database = rusqlite::Connection::open(&database).unwrap();
        let kept: i64 = database
            .query_row("SELECT count(*) FROM alerts", [], |row| row.get(0))
            .unwrap();
        (kept == 0).then_some(())
    })
    .await;
    let told = dead(&hook);
    ctl.kill_9().await;
    ctl.start_again().await;
    ctl.eventually("the next life", async |ctl| {
        (ctl.get("/v1/dead_nodes/w1").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(dead(&hook), told);
}
