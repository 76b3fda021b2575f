//! A controller that takes reports and gives blobs, and otherwise does what the test says.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tucano_api::{
    agent::{Certificate, CertificateRequest, NodeReport, ReportAccepted},
    ids::Generation,
    units::Span,
};
use tucano_image_builder::Layout;
use tucano_tls::{Authority, Validity};

/// What agents present to it, and it to them.
pub(crate) const TOKEN: &str = "agents-only";

/// The controller; it ends with this value.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    known: Arc<Known>,
    server: JoinHandle<()>,
}

struct Known {
    samples: PathBuf,
    published: Mutex<BTreeMap<String, Vec<u8>>>,
    last: Mutex<Option<NodeReport>>,
    generation: AtomicU64,
    blobs_given: AtomicU64,
    authority: Authority,
    /// The directory of its files.
    _authority: tempfile::TempDir,
    gives_certificates: AtomicBool,
    certificates_given: AtomicU64,
}

impl Controller {
    pub(crate) async fn start(samples: PathBuf) -> Self {
        let authority = tempfile::tempdir().unwrap();
        let known = Arc::new(Known {
            samples,
            published: Mutex::default(),
            last: Mutex::default(),
            generation: AtomicU64::new(0),
            blobs_given: AtomicU64::new(0),
            authority: Authority::open(authority.path()).unwrap(),
            _authority: authority,
            gives_certificates: AtomicBool::new(true),
            certificates_given: AtomicU64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/v1/reports", post(take_report))
            .route("/v1/certificates", post(give_certificate))
            .route("/v2/tucano/images/blobs/{digest}", get(give_blob))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&known));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            known,
            server,
        }
    }

    /// The last report that has come.
    pub(crate) fn last_report(&self) -> Option<NodeReport> {
        self.known.last.lock().unwrap().clone()
    }

    /// Forgets it, so that the next one is a new one.
    pub(crate) fn forget_reports(&self) {
        *self.known.last.lock().unwrap() = None;
    }

    /// The generation that reports are answered with.
    pub(crate) fn announce(&self, generation: u64) {
        self.known.generation.store(generation, Ordering::Relaxed);
    }

    /// Gives this image, too, from now on.
    pub(crate) fn publish(&self, image: &Layout) {
        let mut published = self.known.published.lock().unwrap();
        published.extend(image.files.clone());
    }

    /// Does not give this blob any more.
    pub(crate) fn withdraw(&self, blob: &[u8]) {
        let mut published = self.known.published.lock().unwrap();
        published.retain(|_, bytes| bytes != blob);
    }

    /// Who vouches for certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.known.authority
    }

    /// Whether it gives any, from now on.
    pub(crate) fn give_certificates(&self, gives: bool) {
        self.known
            .gives_certificates
            .store(gives, Ordering::Relaxed);
    }

    pub(crate) fn certificates_given(&self) -> u64 {
        self.known.certificates_given.load(Ordering::Relaxed)
    }

    pub(crate) fn blobs_given(&self) -> u64 {
        self.known.blobs_given.load(Ordering::Relaxed)
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

async fn take_report(
    State(known): State<Arc<Known>>,
    headers: HeaderMap,
    Json(report): Json<NodeReport>,
) -> Result<Json<ReportAccepted>, StatusCode> {
    if !authorized(&headers) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    *known.last.lock().unwrap() = Some(report);
    Ok(Json(ReportAccepted {
        node: "w1".parse().unwrap(),
        generation: Generation(known.generation.load(Ordering::Relaxed)),
        lease: Span::secs(6),
        apis: None,
    }))
}

async fn give_certificate(
    State(known): State<Arc<Known>>,
    headers: HeaderMap,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<Certificate>, StatusCode> {
    if !authorized(&headers) || !known.gives_certificates.load(Ordering::Relaxed) {
        return Err(StatusCode::FORBIDDEN);
    }
    known.certificates_given.fetch_add(1, Ordering::Relaxed);
    let validity = Validity::from(SystemTime::now());
    let signed = known.authority.sign(&request.request, request.ip, validity);
    let certificate = signed.map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(Certificate { certificate }))
}

/// A blob of a published image, or of any of the sample images' layouts.
async fn give_blob(
    State(known): State<Arc<Known>>,
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
    if let Some(bytes) = known.published.lock().unwrap().get(&path) {
        return Ok(Body::from(bytes.clone()));
    }
    for image in std::fs::read_dir(&known.samples).unwrap() {
        let blob = image.unwrap().path().join(&path);
        if let Ok(bytes) = std::fs::read(blob) {
            known.blobs_given.fetch_add(1, Ordering::Relaxed);
            return Ok(Body::from(bytes));
        }
    }
    Err(StatusCode::NOT_FOUND)
}
