//! A controller's route endpoint on a unix socket.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tucano_api::routes::{RouteTable, ServiceRoute};

/// Publishes routes as `tucano_ctld` does.
pub(crate) struct Controller {
    pub(crate) socket: PathBuf,
    table: watch::Sender<RouteTable>,
    published: AtomicUsize,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

#[derive(Clone)]
struct State {
    table: watch::Receiver<RouteTable>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Shorter than the real one's, so that tests see answers without change.
const POLL: Duration = Duration::from_millis(300);

impl Controller {
    pub(crate) fn start(socket: PathBuf) -> Self {
        let (table, receiver) = watch::channel(RouteTable::default());
        let asked = Arc::default();
        let state = State {
            table: receiver,
            asked: Arc::clone(&asked),
        };
        let task = serve(&socket, state);
        Self {
            socket,
            table,
            published: AtomicUsize::new(0),
            asked,
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

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
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
            asked: Arc::clone(&self.asked),
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
    state.asked.lock().unwrap().push(target.clone());
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
