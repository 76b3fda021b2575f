//! The audit record: a log event with the target `audit` for each request that changes something or runs a command. It says when,
//! who, from where, what, and with which result. Refused requests are recorded too.

mod command;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{Api, auth::Peer};

pub use command::CommandRecorder;

/// Longest path, and longest command, that is recorded, in characters.
const MAX_SHOWN: usize = 300;

/// What a handler adds to the record, as an extension of its response.
#[derive(Debug, Clone)]
pub struct Details(pub String);

/// Middleware: records a request if it is of a kind that is audited. It wraps the authorization.
pub async fn record(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let Some(action) = action(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let has_token = api.config.current().token.is_some();
    let mut entry = Entry {
        action,
        subject: shown(request.uri().path()),
        peer: request.extensions().get::<Peer>().map(|peer| peer.address),
        has_token,
        status: None,
        details: None,
    };
    let response = next.run(request).await;
    entry.status = Some(response.status());
    entry.details = response.extensions().get::<Details>().cloned();
    response
}

/// Written when it is dropped: also when the client disconnects before it is answered.
struct Entry {
    action: &'static str,
    subject: String,
    peer: Option<SocketAddr>,
    has_token: bool,
    status: Option<StatusCode>,
    details: Option<Details>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let identity = identity(self.has_token, self.status);
        let peer = self.peer.map(|peer| peer.to_string());
        let peer = peer.as_deref().unwrap_or("unknown");
        let result = result(self.status);
        let status = self.status.map_or(0, |status| status.as_u16());
        let details = self.details.as_ref().map_or("", |details| &details.0);
        let (action, subject) = (self.action, &self.subject);
        tracing::info!(
            target: "audit",
            action, subject, identity, peer, result, status, details,
            "{action} by {identity} from {peer}: {result}"
        );
    }
}

/// Who sent a request: of tokens, by the key of ctl.toml that holds it.
fn identity(has_token: bool, status: Option<StatusCode>) -> &'static str {
    match status {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => "nobody",
        _ if has_token => "token",
        _ => "local",
    }
}

fn result(status: Option<StatusCode>) -> &'static str {
    match status {
        None => "the client disconnected",
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => "denied",
        Some(StatusCode::SERVICE_UNAVAILABLE) => "not healthy in time, or unavailable",
        Some(status) if status.is_client_error() => "refused",
        Some(status) if status.is_server_error() => "failed",
        Some(_) => "done",
    }
}

/// The kind of a request; none if it changes nothing, or comes from an agent.
fn action(method: &Method, path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let action = match (method.as_str(), parts.as_slice()) {
        ("GET" | "HEAD" | "OPTIONS", _) => return None,
        ("POST", ["v1", "reports" | "certificates" | "secret_values"]) => return None,
        ("POST", ["v1", "services" | "applications"]) => "deploy",
        ("PATCH", ["v1", "services", _]) => "change",
        ("DELETE", ["v1", "services", _]) => "remove",
        ("DELETE", ["v1", "volumes", ..]) => "remove_volume",
        ("POST", ["v1", "volumes", .., "move"]) => "move_volume",
        ("POST", ["v1", "services", _, "rollback"]) => "rollback",
        ("POST", ["v1", "services", _, "restart"]) => "restart",
        ("POST", ["v1", "services" | "processes", _, "exec"]) => "exec",
        ("PUT", ["v1", "secrets", _]) => "set a secret",
        ("DELETE", ["v1", "secrets", _]) => "remove a secret",
        ("POST", ["v1", "secret_key"]) => "rekey",
        ("PUT", ["v2", .., "manifests", _]) => "push",
        ("DELETE", ["v2", ..]) => "delete",
        // Uploads of blobs: their manifest is recorded.
        (_, ["v2", ..]) => return None,
        ("POST", ["v1", "config", "reload"]) => "reload",
        _ => "request",
    };
    Some(action)
}

fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
