//! A controller's route endpoint on a unix socket.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tucano_api::{
    balancer::BalancerReport,
    routes::{RouteTable, ServiceRoute},
};

/// Publishes routes as `tucano_ctld` does.
pub(crate) struct Controller {
    pub(crate) socket: PathBuf,
    table: watch::Sender<RouteTable>,
    published: AtomicUsize,
    heard: Arc<Heard>,
    task: AbortHandle,
}

#[derive(Clone)]
struct State {
    table: watch::Receiver<RouteTable>,
    heard: Arc<Heard>,
}

/// What balancers have sent.
#[derive(Default)]
struct Heard {
    asked: Mutex<Vec<String>>,
    reports: Mutex<Vec<BalancerReport>>,
    /// Whether reports are not known, as in earlier versions.
    is_old: AtomicBool,
}

/// Shorter than the real one's, so that tests see answers without change.
const POLL: Duration = Duration::from_millis(300);

impl Controller {
    pub(crate) fn start(socket: PathBuf) -> Self {
        let (table, receiver) = watch::channel(RouteTable::default());
        let heard = Arc::<Heard>::default();
        let state = State {
            table: receiver,
            heard: heard.clone(),
        };
        let task = serve(&socket, state);
        Self {
            socket,
            table,
            published: AtomicUsize::new(0),
            heard,
            task,
        }
    }

    /// Publishes `services`; returns the new table's version, which needs percent-encoding.
    pub(crate) fn publish(&self, services: Vec<ServiceRoute>) -> String {
        let count = self.published.fetch_add(1, Relaxed) + 1;
        let version = format!("v {count}é&");
        self.table.send_replace(RouteTable {
            version: version.clone(),
            services,
        });
        version
    }

    /// The requests for routes so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.heard.asked.lock().unwrap().clone()
    }

    /// The reports so far.
    pub(crate) fn reports(&self) -> Vec<BalancerReport> {
        self.heard.reports.lock().unwrap().clone()
    }

    /// The processes that the last report for the table of this version confirms.
    pub(crate) fn drained(&self, version: &str) -> Option<Vec<String>> {
        let reports = self.reports();
        let of_table = |report: &&BalancerReport| report.table.as_deref() == Some(version);
        let last = reports.iter().rev().find(of_table)?;
        Some(last.drained.iter().map(ToString::to_string).collect())
    }

    /// From now on it answers as a controller of an earlier version.
    pub(crate) fn be_old(&self) {
        self.heard.is_old.store(true, Relaxed);
    }

    /// Ends with all its connections, as by kill -9: the socket's file stays.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    /// Starts again.
    pub(crate) fn restart(&mut self) {
        std::fs::remove_file(&self.socket).unwrap();
        let state = State {
            table: self.table.subscribe(),
            heard: self.heard.clone(),
        };
        self.task = serve(&self.socket, state);
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(socket: &PathBuf, state: State) -> AbortHandle {
    let listener = UnixListener::bind(socket).unwrap();
    let task = tokio::spawn(async move {
        // Dropped with this task, and the connections with it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let state = state.clone();
            let service = service_fn(move |request| answer(state.clone(), request));
            connections.spawn(async move {
                let io = TokioIo::new(stream);
                http1::Builder::new().serve_connection(io, service).await
            });
        }
    });
    task.abort_handle()
}

async fn answer(
    mut state: State,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().to_string();
    if request.method() == Method::POST {
        return Ok(accept_report(&state.heard, request).await);
    }
    state.heard.asked.lock().unwrap().push(target.clone());
    let known = target.strip_prefix("/v1/routes?after=").map(decode);
    let known = known.unwrap_or_default();
    let changed = state.table.wait_for(|table| table.version != known);
    let response = match timeout(POLL, changed).await {
        Ok(Ok(table)) => Response::new(Full::from(serde_json::to_vec(&*table).unwrap())),
        _ => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    };
    Ok(response)
}

async fn accept_report(heard: &Heard, request: Request<Incoming>) -> Response<Full<Bytes>> {
    assert_eq!(request.uri().path(), "/v1/balancer_reports");
    let mut response = Response::default();
    if heard.is_old.load(Relaxed) {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if let Ok(body) = request.into_body().collect().await {
        let report = serde_json::from_slice(&body.to_bytes()).unwrap();
        heard.reports.lock().unwrap().push(report);
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next().unwrap()).to_digit(16).unwrap() as u8;
                digit() * 16 + digit()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}
