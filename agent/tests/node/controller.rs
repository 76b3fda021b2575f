//! A fake controller that accepts reports and serves blobs and certificates.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{net::TcpListener, task::JoinHandle};
use tucano_api::{
    agent::{Apis, Certificate, CertificateRequest, NodeReport, ReportAccepted},
    ids::Generation,
    names::{Names, ServiceSubnet},
    secrets::{SecretValue, SecretValues, SecretValuesRequest, SecretVersion},
    units::Span,
};
use tucano_image_builder::{
    Layout,
    layout::{blob_path, sha256},
};
use tucano_tls::{Authority, Identity, Validity, authority::Name};

/// The agent token.
pub(crate) const TOKEN: &str = "agents-only";

/// The fake controller; dropping it stops its server.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    state: Arc<ControllerState>,
    server: JoinHandle<()>,
}

struct ControllerState {
    samples: PathBuf,
    published: Mutex<BTreeMap<String, Vec<u8>>>,
    last: Mutex<Option<NodeReport>>,
    generation: AtomicU64,
    blobs_served: AtomicU64,
    /// Requests for blobs, by path.
    requests: Mutex<BTreeMap<String, u64>>,
    authority: Authority,
    /// The directory of its files.
    _authority: tempfile::TempDir,
    issues_certificates: AtomicBool,
    certificates_issued: AtomicU64,
    /// What it says of services; nothing while it has no version.
    names: Mutex<Names>,
    /// Values of secrets, as `name@version`; none while it refuses them.
    secrets: Mutex<Option<BTreeMap<String, Vec<u8>>>>,
}

impl Controller {
    pub(crate) async fn start(samples: PathBuf) -> Self {
        let authority = tempfile::tempdir().unwrap();
        let state = Arc::new(ControllerState {
            samples,
            published: Mutex::default(),
            last: Mutex::default(),
            generation: AtomicU64::new(0),
            blobs_served: AtomicU64::new(0),
            requests: Mutex::default(),
            authority: Authority::open(authority.path()).unwrap(),
            _authority: authority,
            issues_certificates: AtomicBool::new(true),
            certificates_issued: AtomicU64::new(0),
            names: Mutex::default(),
            secrets: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/v1/reports", post(accept_report))
            .route("/v1/names", get(tell_names))
            .route("/v1/secret_values", post(reveal))
            .route("/v1/certificates", post(issue_certificate))
            .route("/v2/tucano/images/blobs/{digest}", get(serve_blob))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            state,
            server,
        }
    }

    /// Says this of services from now on; nothing new without a version.
    pub(crate) fn set_names(&self, names: Names) {
        *self.state.names.lock().unwrap() = names;
    }

    /// Gives these values from now on, or refuses all.
    pub(crate) fn set_secrets(&self, secrets: Option<&[(&str, &[u8])]>) {
        let owned = |all: &[(&str, &[u8])]| {
            let all = all.iter();
            all.map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect()
        };
        *self.state.secrets.lock().unwrap() = secrets.map(owned);
    }

    /// The last report.
    pub(crate) fn last_report(&self) -> Option<NodeReport> {
        self.state.last.lock().unwrap().clone()
    }

    /// Clears the last report, so that the next one is recognised as new.
    pub(crate) fn forget_reports(&self) {
        *self.state.last.lock().unwrap() = None;
    }

    /// Sets the generation in answers to reports.
    pub(crate) fn announce(&self, generation: u64) {
        self.state.generation.store(generation, Ordering::Relaxed);
    }

    /// Serves this image, too, from now on.
    pub(crate) fn publish(&self, image: &Layout) {
        let mut published = self.state.published.lock().unwrap();
        published.extend(image.files.clone());
    }

    /// Stops serving this blob.
    pub(crate) fn withdraw(&self, blob: &[u8]) {
        let mut published = self.state.published.lock().unwrap();
        published.retain(|_, bytes| bytes != blob);
    }

    /// The authority that signs certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.state.authority
    }

    /// Sets whether it issues certificates.
    pub(crate) fn set_issuing(&self, enabled: bool) {
        self.state
            .issues_certificates
            .store(enabled, Ordering::Relaxed);
    }

    pub(crate) fn certificates_issued(&self) -> u64 {
        self.state.certificates_issued.load(Ordering::Relaxed)
    }

    /// How often a blob was requested, whole or in part.
    pub(crate) fn requests_for(&self, blob: &[u8]) -> u64 {
        let path = blob_path(&sha256(blob));
        let requests = self.state.requests.lock().unwrap();
        requests.get(&path).copied().unwrap_or_default()
    }

    pub(crate) fn blobs_served(&self) -> u64 {
        self.state.blobs_served.load(Ordering::Relaxed)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn authorized(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| *value == format!("Bearer {TOKEN}"))
}

async fn accept_report(
    State(state): State<Arc<ControllerState>>,
    headers: HeaderMap,
    Json(report): Json<NodeReport>,
) -> Result<Json<ReportAccepted>, StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let known = report.apis.is_some();
    let connects = !state.names.lock().unwrap().version.is_empty();
    let apis = (connects && !known).then(|| Apis {
        tag: "1".to_owned(),
        addresses: Vec::new(),
        workers: Vec::new(),
        services: Some(ServiceSubnet::default()),
    });
    *state.last.lock().unwrap() = Some(report);
    Ok(Json(ReportAccepted {
        send_held: false,
        desired: None,
        node: "w1".parse().unwrap(),
        generation: Generation(state.generation.load(Ordering::Relaxed)),
        lease: Span::secs(6),
        apis,
    }))
}

/// A real one waits for a change.
async fn tell_names(
    State(state): State<Arc<ControllerState>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Names>, StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let names = state.names.lock().unwrap().clone();
    if names.version.is_empty() || query.get("after") == Some(&names.version) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        return Err(StatusCode::NO_CONTENT);
    }
    Ok(Json(names))
}

async fn reveal(
    State(state): State<Arc<ControllerState>>,
    headers: HeaderMap,
    Json(request): Json<SecretValuesRequest>,
) -> Result<Json<SecretValues>, StatusCode> {
    let secrets = state.secrets.lock().unwrap();
    let secrets = secrets.as_ref().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let value = |secret: &SecretVersion| {
        let value = secrets.get(&format!("{}@{}", secret.name, secret.version));
        value.map(|value| SecretValue(BASE64_STANDARD.encode(value)))
    };
    let values: Option<Vec<SecretValue>> = request.secrets.iter().map(value).collect();
    let values = values.ok_or(StatusCode::FORBIDDEN)?;
    Ok(Json(SecretValues { values }))
}

async fn issue_certificate(
    State(state): State<Arc<ControllerState>>,
    headers: HeaderMap,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<Certificate>, StatusCode> {
    if !authorized(&headers) || !state.issues_certificates.load(Ordering::Relaxed) {
        return Err(StatusCode::FORBIDDEN);
    }
    state.certificates_issued.fetch_add(1, Ordering::Relaxed);
    let validity = Validity::from(SystemTime::now());
    let node = Identity::Node("w1".to_owned());
    let signed = state
        .authority
        .sign(&request.request, &node, &[Name::Ip(request.ip)], validity);
    let certificate = signed.map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(Certificate { certificate }))
}

/// A blob of a published image, or of any of the sample images' layouts.
async fn serve_blob(
    State(state): State<Arc<ControllerState>>,
    headers: HeaderMap,
    Path(digest): Path<String>,
) -> Result<Body, StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let hex = digest
        .strip_prefix("sha256:")
        .ok_or(StatusCode::BAD_REQUEST)?;
    let path = format!("blobs/sha256/{hex}");
    *state
        .requests
        .lock()
        .unwrap()
        .entry(path.clone())
        .or_default() += 1;
    if let Some(bytes) = state.published.lock().unwrap().get(&path) {
        return Ok(Body::from(bytes.clone()));
    }
    for image in std::fs::read_dir(&state.samples).unwrap() {
        let blob = image.unwrap().path().join(&path);
        if let Ok(bytes) = std::fs::read(blob) {
            state.blobs_served.fetch_add(1, Ordering::Relaxed);
            return Ok(Body::from(bytes));
        }
    }
    Err(StatusCode::NOT_FOUND)
}
