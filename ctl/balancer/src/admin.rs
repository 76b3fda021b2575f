//! The admin socket: metrics and a health check, for its owner only.

use std::{
    convert::Infallible,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use crate::{metrics, plane::DataPlane};

/// Why the admin socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket of an earlier balancer cannot be removed.
    #[error("cannot remove the old admin socket {0}")]
    Remove(PathBuf, #[source] io::Error),
    /// The socket cannot be bound.
    #[error(
        "cannot listen on the admin socket {0}; check that its directory exists and is writable"
    )]
    Bind(PathBuf, #[source] io::Error),
    /// Its permissions cannot be set.
    #[error("cannot set the permissions of the admin socket {0}")]
    Protect(PathBuf, #[source] io::Error),
}

/// Binds the socket, accessible to its owner only.
pub fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(AdminError::Remove(path.to_owned(), error));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).map_err(|error| AdminError::Bind(path.to_owned(), error))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| AdminError::Protect(path.to_owned(), error))?;
    Ok(listener)
}

/// Serves one connection after another, forever.
pub async fn run(listener: UnixListener, plane: Arc<DataPlane>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, &plane).await,
            Err(error) => {
                warn!(%error, "the admin socket is closed");
                return;
            }
        }
    }
}

async fn serve(stream: UnixStream, plane: &Arc<DataPlane>) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(plane, &request))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "an admin connection failed");
    }
}

fn answer(plane: &Arc<DataPlane>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/metrics") => match metrics::render(plane) {
            Ok(page) => (StatusCode::OK, page),
            Err(_) => {
                let text = "cannot encode the metrics\n".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        },
        _ => {
            let text = "not found; try GET /metrics or GET /healthz\n".to_owned();
            (StatusCode::NOT_FOUND, text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
