//! A fake agent: it reports each desired process in the state that the test chooses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post, put},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, task::JoinHandle};
use tucano_api::{
    agent::{
        DesiredProcess, DesiredSet, Enforcement, Identity, NodeMetrics, NodeReport, NodeVolumes,
        Prefetch, PrefetchedBlob, ProcessReport, ProcessState, VolumeInstance, VolumeReport,
    },
    error::ErrorBody,
    ids::{Digest, Generation},
    logs::KeptOutput,
    service::AGENT_KEYS,
    units::{Bytes, Timestamp},
};

use crate::ctl::Ctl;

type Outcome = Box<dyn Fn(&DesiredProcess, &mut ProcessReport) + Send + Sync>;

/// Reports until it is cut off or dropped.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    node: String,
    ip: IpAddr,
    port: u16,
    id: String,
    token: Option<String>,
    desired: Mutex<Option<DesiredSet>>,
    outcome: Mutex<Outcome>,
    is_cut_off: AtomicBool,
    /// The token that the controller presented.
    presented: Mutex<Option<String>>,
    answered: Mutex<Option<StatusCode>>,
    /// Announced blobs.
    hints: Mutex<Vec<PrefetchedBlob>>,
    /// Withdrawn blobs.
    withdrawn: Mutex<Vec<Digest>>,
    /// The architecture that it claims to have.
    architecture: Mutex<String>,
    /// Whether it answers requests for output as an agent of the version before.
    is_old: AtomicBool,
    /// Removed processes whose output it keeps.
    kept: Mutex<Vec<KeptOutput>>,
    /// Its volumes, with their sizes.
    volumes: Mutex<BTreeMap<VolumeInstance, Bytes>>,
}

/// The time of each process's first line.
pub(crate) const LINE_TIME: &str = "2026-07-01T12:00:00.001Z";

impl Agent {
    /// The agent of worker `w<n>`.
    pub(crate) async fn start(ctl: &Ctl, n: u8) -> Self {
        Self::start_with_token(ctl, n, None).await
    }

    pub(crate) async fn start_with_token(ctl: &Ctl, n: u8, token: Option<&str>) -> Self {
        let ip: IpAddr = [127, 0, 0, 10 + n].into();
        let listener = tokio::net::TcpListener::bind(SocketAddr::new(ip, 0))
            .await
            .unwrap();
        let shared = Arc::new(Shared {
            node: format!("w{n}"),
            ip,
            port: listener.local_addr().unwrap().port(),
            id: format!("{:?}", std::time::Instant::now()),
            token: token.map(str::to_owned),
            desired: Mutex::default(),
            outcome: Mutex::new(Box::new(|_, _| {})),
            is_cut_off: AtomicBool::new(false),
            presented: Mutex::default(),
            answered: Mutex::default(),
            hints: Mutex::default(),
            withdrawn: Mutex::default(),
            architecture: Mutex::new("amd64".to_owned()),
            is_old: AtomicBool::new(false),
            kept: Mutex::default(),
            volumes: Mutex::default(),
        });
        let routes = Router::new()
            .route("/v1/desired", put(take))
            .route("/v1/prefetch", post(hear))
            .route("/v1/processes/{id}/logs", get(logs))
            .route("/v1/services/{name}/logs", get(kept))
            .route("/v1/processes/{id}/exec", post(echo))
            .route("/v1/identity", get(identity))
            .with_state(shared.clone());
        let serve = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let report = tokio::spawn(report(shared.clone(), ctl.url("/v1/reports")));
        Self {
            shared,
            tasks: vec![serve, report],
        }
    }

    /// Claims to have another architecture from now on.
    pub(crate) fn claim_architecture(&self, architecture: &str) {
        architecture.clone_into(&mut self.shared.architecture.lock().unwrap());
    }

    /// Reports each process as healthy, modified by `change`, from now on.
    pub(crate) fn report_as(
        &self,
        change: impl Fn(&DesiredProcess, &mut ProcessReport) + Send + Sync + 'static,
    ) {
        *self.shared.outcome.lock().unwrap() = Box::new(change);
    }

    /// Stops or resumes reporting.
    pub(crate) fn cut_off(&self, is_cut_off: bool) {
        self.shared.is_cut_off.store(is_cut_off, SeqCst);
    }

    /// Answers requests for output as an agent of the version before, from now on.
    pub(crate) fn be_old(&self) {
        self.shared.is_old.store(true, SeqCst);
    }

    /// Keeps the output of a process that was removed at this time.
    pub(crate) fn keep(&self, id: &str, removed_at: Timestamp) {
        let output = KeptOutput {
            id: id.parse().unwrap(),
            removed_at,
        };
        self.shared.kept.lock().unwrap().push(output);
    }

    /// What it is to run, as the controller has sent it.
    pub(crate) fn desired_processes(&self) -> Vec<DesiredProcess> {
        let desired = self.shared.desired.lock().unwrap();
        let processes = desired.iter().flat_map(|set| &set.processes);
        processes.cloned().collect()
    }

    /// Ids of the desired processes.
    pub(crate) fn processes(&self) -> Vec<String> {
        let processes = self.desired_processes().into_iter();
        processes.map(|process| process.id.to_string()).collect()
    }

    /// `agent_id` and `agent_port` of its reports.
    pub(crate) fn id_and_port(&self) -> (String, u16) {
        (self.shared.id.clone(), self.shared.port)
    }

    /// The answer to its last report.
    pub(crate) fn answered(&self) -> Option<StatusCode> {
        *self.shared.answered.lock().unwrap()
    }

    /// Announced blobs.
    pub(crate) fn hints(&self) -> Vec<PrefetchedBlob> {
        self.shared.hints.lock().unwrap().clone()
    }

    /// Blobs that were withdrawn after their announcement.
    pub(crate) fn withdrawn(&self) -> Vec<Digest> {
        self.shared.withdrawn.lock().unwrap().clone()
    }

    /// The token that the controller presented last.
    pub(crate) fn presented_token(&self) -> Option<String> {
        self.shared.presented.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn take(
    State(agent): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(set): Json<DesiredSet>,
) -> StatusCode {
    if agent.is_cut_off.load(SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let authorization = headers.get("authorization");
    *agent.presented.lock().unwrap() =
        authorization.map(|value| value.to_str().unwrap().to_owned());
    let mut desired = agent.desired.lock().unwrap();
    if desired
        .as_ref()
        .is_some_and(|now| now.generation > set.generation)
    {
        return StatusCode::CONFLICT;
    }
    // They are created before the next set, also where no report comes in between.
    agent.volumes(Some(&set));
    *desired = Some(set);
    StatusCode::OK
}

async fn hear(State(agent): State<Arc<Shared>>, Json(hint): Json<Prefetch>) -> StatusCode {
    let mut hints = agent.hints.lock().unwrap();
    // A withdrawal that overtakes its announcement has no effect.
    let announced = |blob: &Digest| hints.iter().any(|hint| hint.digest == *blob);
    let withdrawn = hint.withdrawn.into_iter().filter(announced);
    agent.withdrawn.lock().unwrap().extend(withdrawn);
    hints.extend(hint.blobs);
    StatusCode::ACCEPTED
}

async fn identity(State(agent): State<Arc<Shared>>) -> Result<Json<Identity>, StatusCode> {
    if agent.is_cut_off.load(SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let agent_id = agent.id.clone();
    Ok(Json(Identity { agent_id }))
}

async fn logs(
    State(agent): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Body, (StatusCode, Json<ErrorBody>)> {
    let is_desired = agent.desired.lock().unwrap().as_ref().is_some_and(|set| {
        let mut processes = set.processes.iter();
        processes.any(|process| process.id.as_str() == id)
    });
    let is_kept = || {
        let kept = agent.kept.lock().unwrap();
        kept.iter().any(|output| output.id.as_str() == id)
    };
    if !is_desired && !is_kept() {
        let body = ErrorBody::new("not_found", "there is no such process");
        return Err((StatusCode::NOT_FOUND, Json(body)));
    }
    let is_of_this_version = query.iter().any(|(key, _)| key == "format");
    if agent.is_old.load(SeqCst) && is_of_this_version {
        let body = ErrorBody::new("invalid_query", "unknown field `format`");
        return Err((StatusCode::BAD_REQUEST, Json(body)));
    }
    let query: Vec<String> = query.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let lines = [
        format!("I am {id}"),
        format!("asked for {}", query.join(" ")),
    ];
    Ok(Body::from(if is_of_this_version {
        let [first, second] = lines;
        format!("{LINE_TIME} stdout F {first}\n- stderr F {second}\n")
    } else {
        lines.map(|line| line + "\n").concat()
    }))
}

async fn kept(
    State(agent): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<KeptOutput>>, StatusCode> {
    if agent.is_old.load(SeqCst) {
        return Err(StatusCode::NOT_FOUND);
    }
    let mut kept = agent.kept.lock().unwrap().clone();
    kept.retain(|output| output.id.service_name() == name);
    Ok(Json(kept))
}

/// Sends the process id, then echoes its input.
async fn echo(Path(id): Path<String>, mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let connection = TokioIo::new(upgrade.await.unwrap());
        let (mut from, mut to) = tokio::io::split(connection);
        let greeted = to.write_all(format!("{id}\n").as_bytes()).await;
        // The client may be gone.
        if greeted.is_ok() && tokio::io::copy(&mut from, &mut to).await.is_ok() {
            to.shutdown().await.ok();
        }
    });
    let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let switching = switching.header("Connection", "upgrade");
    switching
        .header("Upgrade", "tucano-exec")
        .body(Body::empty())
        .unwrap()
}

async fn report(agent: Arc<Shared>, url: String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for sequence in 1.. {
        tokio::time::sleep(Duration::from_millis(30)).await;
        if agent.is_cut_off.load(SeqCst) {
            continue;
        }
        let mut request = client.post(&url).json(&agent.report(sequence));
        if let Some(token) = &agent.token {
            request = request.bearer_auth(token);
        }
        // Some tests stop the controller or have it refuse.
        if let Ok(answer) = request.send().await {
            *agent.answered.lock().unwrap() = Some(answer.status());
        }
    }
}

impl Shared {
    /// Those of all processes so far, without the removed ones.
    fn volumes(&self, desired: Option<&DesiredSet>) -> NodeVolumes {
        let mut volumes = self.volumes.lock().unwrap();
        for process in desired.into_iter().flat_map(|set| &set.processes) {
            for (desired, volume) in process.volumes.iter().zip(&process.config.volume) {
                volumes.insert(desired.volume.clone(), volume.size);
            }
        }
        for removed in desired.into_iter().flat_map(|set| &set.removed_volumes) {
            volumes.remove(removed);
        }
        let report = |(volume, size): (&VolumeInstance, &Bytes)| VolumeReport {
            volume: volume.clone(),
            size: *size,
            used: Some(Bytes(4096)),
            enforcement: None,
            problem: None,
            load: None,
        };
        NodeVolumes {
            capacity: Bytes::mib(8192),
            enforcement: Enforcement::LoopFile,
            can_copy: false,
            fills: Vec::new(),
            can_back_up: false,
            backup_paths: Vec::new(),
            backups: Vec::new(),
            all: volumes.iter().map(report).collect(),
        }
    }

    fn report(&self, sequence: u64) -> NodeReport {
        let desired = self.desired.lock().unwrap();
        let outcome = self.outcome.lock().unwrap();
        let processes = desired.iter().flat_map(|set| &set.processes);
        NodeReport {
            node: Some(self.node.parse().unwrap()),
            ip: self.ip,
            agent_port: self.port,
            agent_id: self.id.clone(),
            sequence,
            version: "0.1.0".to_owned(),
            architecture: self.architecture.lock().unwrap().clone(),
            live_changes: true,
            keys: AGENT_KEYS.map(str::to_owned).to_vec(),
            host_paths: Vec::new(),
            devices: Default::default(),
            device_paths: Vec::new(),
            volumes: Some(self.volumes(desired.as_ref())),
            generation: desired.as_ref().map_or(Generation(0), |set| set.generation),
            identity: desired
                .as_ref()
                .map(|set| set.identity.clone())
                .unwrap_or_default(),
            held: None,
            metrics: NodeMetrics {
                cpus: 2,
                memory_total: Bytes::mib(8192),
                memory_available: Bytes::mib(8192),
                memory_reservable: Bytes::mib(8192),
                disk_total: Bytes::mib(8192),
                disk_available: Bytes::mib(8192),
                ..NodeMetrics::default()
            },
            apis: None,
            notes: Vec::new(),
            processes: processes
                .map(|process| healthy(process, &outcome))
                .collect(),
        }
    }
}

fn healthy(process: &DesiredProcess, outcome: &Outcome) -> ProcessReport {
    let mut report = ProcessReport {
        id: process.id.clone(),
        service: process.config.name.clone(),
        revision: process.revision,
        state: ProcessState::Healthy,
        reason: None,
        node_port: u16::try_from(20_000 + process.id.number()).ok(),
        ports: Default::default(),
        started_at: None,
        restarts: 0,
        last_exit: None,
        relaxed: Vec::new(),
        metrics: None,
        attempts: 0,
        listening: None,
        disk_used: None,
        last_lines: Vec::new(),
        devices: Vec::new(),
    };
    outcome(process, &mut report);
    report
}
