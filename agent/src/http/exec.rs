//! `POST /v1/processes/{id}/exec`: a session in a process's container. The connection becomes the standard streams of
//! `tucano_oci session`; what is said there is between that and the client.

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

use super::{Api, Refusal, named};

/// How long a session may take to end once nobody listens.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let id = named(&id)?;
    let home = api.existing(&id)?.home();
    let headers = request.headers();
    if !is_upgrade_request(|name| headers.get(name).map(HeaderValue::as_bytes)) {
        let message = format!("write `Connection: Upgrade` and `Upgrade: {UPGRADE}`");
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(Refusal::new(status, "upgrade_required", message));
    }
    let permit = Arc::clone(&api.sessions).try_acquire_owned().map_err(|_| {
        let message = "too many commands run on this node (limits.sessions): try later";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", message)
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let program = api.executor.runtime.as_path().to_owned();
    tracing::info!(process = %id, "a command is run for the controller");
    tokio::spawn(serve(program, home, upgrade, permit));
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .body(Body::empty())
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "io", error))
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
        pass_on(TokioIo::new(connection), session).await
    };
    if let Err(error) = served.await {
        tracing::info!(home = %home.display(), %error, "a session broke");
    }
    drop(permit);
}

/// Until the session ends. That the client is gone it learns from its standard input, and ends what it runs.
async fn pass_on(
    connection: TokioIo<hyper::upgrade::Upgraded>,
    mut session: Child,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = split(connection);
    let (Some(mut stdin), Some(mut stdout)) = (session.stdin.take(), session.stdout.take()) else {
        return Err(std::io::Error::other("a stream is missing"));
    };
    let inwards = async {
        let passed = copy(&mut from_client, &mut stdin).await;
        drop(stdin);
        if passed.is_err() {
            tracing::debug!("a client has gone, or a session");
        }
        // What is still said to it counts no more, but the session's end is awaited.
        std::future::pending::<()>().await;
    };
    let outwards = async {
        let passed = copy(&mut stdout, &mut to_client).await;
        // Not read on, it ends as well.
        drop(stdout);
        passed.and(to_client.shutdown().await)
    };
    let passed = tokio::select! {
        () = inwards => Ok(()),
        passed = outwards => passed,
    };
    // By now both of its streams are closed: it ends what it ran, and then itself.
    if timeout(END_TIMEOUT, session.wait()).await.is_err() {
        session.kill().await?;
    }
    passed
}
