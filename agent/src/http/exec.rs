//! `POST /v1/processes/{id}/exec`: runs a command in a process's container. The connection is upgraded and becomes the
//! standard streams of `tucano_oci session`, which speaks the session protocol with the client.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy, split},
    process::{Child, Command},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tucano_oci_session::{UPGRADE, is_upgrade_request};

use super::{Api, ApiError, parse_process_id};

/// Time that a session has to end after its client disconnected; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let id = parse_process_id(&id)?;
    let home = api.existing(&id)?.home();
    let headers = request.headers();
    if !is_upgrade_request(|name| headers.get(name).map(HeaderValue::as_bytes)) {
        let message = format!("write `Connection: Upgrade` and `Upgrade: {UPGRADE}`");
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(ApiError::new(status, "upgrade_required", message));
    }
    let permit = Arc::clone(&api.sessions).try_acquire_owned().map_err(|_| {
        let message = "too many commands run on this node (limits.sessions): try again later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", message)
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let program = api.executor.runtime.as_path().to_owned();
    tracing::info!(process = %id, "running a command for the controller");
    tokio::spawn(serve(program, home, upgrade, permit));
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .body(Body::empty())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "io", error))
}

async fn serve(program: PathBuf, home: PathBuf, upgrade: OnUpgrade, permit: OwnedSemaphorePermit) {
    let served = async {
        let connection = upgrade.await.map_err(std::io::Error::other)?;
        let session = Command::new(&program)
            .arg("session")
            .arg(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        relay(TokioIo::new(connection), session).await
    };
    if let Err(error) = served.await {
        tracing::info!(home = %home.display(), %error, "a session failed");
    }
    drop(permit);
}

/// Copies in both directions until the session ends. A session whose standard input is closed ends its command.
async fn relay(
    connection: TokioIo<hyper::upgrade::Upgraded>,
    mut session: Child,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = split(connection);
    let (Some(mut stdin), Some(mut stdout)) = (session.stdin.take(), session.stdout.take()) else {
        return Err(std::io::Error::other(
            "a standard stream of the session is missing",
        ));
    };
    let inbound = async {
        let copied = copy(&mut from_client, &mut stdin).await;
        drop(stdin);
        if copied.is_err() {
            tracing::debug!("a client or a session closed its stream");
        }
        // The session's end is decided by its output alone.
        std::future::pending::<()>().await;
    };
    let outbound = async {
        let copied = copy(&mut stdout, &mut to_client).await;
        // A session whose output nobody reads ends too.
        drop(stdout);
        copied.and(to_client.shutdown().await)
    };
    let copied = tokio::select! {
        () = inbound => Ok(()),
        copied = outbound => copied,
    };
    // Both of its streams are closed by now, upon which the session ends its command and itself.
    if timeout(END_TIMEOUT, session.wait()).await.is_err() {
        session.kill().await?;
    }
    copied
}
