//! A server of buckets that others wrote, behind a front that fails on demand.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::{Body, auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tucano_backup::{S3, Secret};

use crate::support::Asking;

const KEY: &str = "an access key of tests";

/// What the front does with requests whose path ends with a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Says that there is nothing.
    Absent,
    /// Fails.
    Fails,
    /// Refuses.
    Denies,
    /// Never answers.
    Hangs,
}

/// Which requests fail, and how.
type Faults = Arc<Mutex<Option<(&'static str, Fault)>>>;

/// The server.
pub(crate) struct Server {
    pub(crate) root: TempDir,
    pub(crate) asking: Asking,
    faults: Faults,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("backups")).expect("a bucket");
        let mut builder =
            S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).expect("a server"));
        builder.set_auth(SimpleAuth::from_single("tests", KEY));
        let service = builder.build();
        let faults = Faults::default();
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let front = Arc::clone(&faults);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, front) = (service.clone(), Arc::clone(&front));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (service, fault) = (service.clone(), fault(&front, &request));
                    async move {
                        match fault {
                            None => hyper::service::Service::call(&service, request).await,
                            Some(fault) => Ok(failing(fault).await),
                        }
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    let connection = server.serve_connection(TokioIo::new(socket), answer);
                    connection.await.ok();
                });
            }
        });
        let s3 = S3 {
            endpoint: Some(format!("http://{address}")),
            access_key_id: Some("tests".to_owned()),
            secret_access_key: Some(Secret::new(KEY)),
            ..S3::default()
        };
        let mut asking = Asking::new("s3://backups/cluster".to_owned(), Some(s3));
        asking.limits.retries = 1;
        Self {
            root,
            asking,
            faults,
            _runtime: runtime,
        }
    }

    /// From now on requests fail whose path ends with the suffix.
    pub(crate) fn fail(&self, fault: Option<(&'static str, Fault)>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

fn fault(faults: &Faults, request: &Request<Incoming>) -> Option<Fault> {
    let fault = *faults.lock().unwrap_or_else(PoisonError::into_inner);
    let (suffix, fault) = fault?;
    request.uri().path().ends_with(suffix).then_some(fault)
}

async fn failing(fault: Fault) -> Response<Body> {
    let (status, code) = match fault {
        Fault::Absent => (404, "NoSuchKey"),
        Fault::Fails => (500, "InternalError"),
        Fault::Denies => (403, "AccessDenied"),
        Fault::Hangs => pending().await,
    };
    let body = format!("<Error><Code>{code}</Code><Message>as tests want</Message></Error>");
    Response::builder()
        .status(status)
        .body(Body::from(body))
        .expect("an answer")
}
