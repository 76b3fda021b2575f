//! The protocol: OCI distribution specification 1.1, "Endpoints". A repository's name may contain slashes, and may look
//! like an endpoint, so paths are parsed from their end.

mod blobs;
mod body;
mod endpoint;
mod manifests;
mod range;
mod uploads;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, Method, header::LINK},
    response::{IntoResponse, Response},
    routing::any,
};
use serde::Deserialize;
use serde_json::json;

use self::endpoint::Endpoint;
use crate::{error::Error, name::Name, references::Page, registry::Registry};

/// Identifies a registry to older clients.
pub const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The routes of a registry: all paths below `/v2/`.
pub fn router<S: Clone + Send + Sync + 'static>(registry: Registry) -> Router<S> {
    let answer = any(answer);
    Router::new()
        .route("/v2", answer.clone())
        .route("/v2/", answer.clone())
        .route("/v2/{*path}", answer)
        .with_state(Arc::new(registry))
}

/// The query parameters of all requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    n: Option<String>,
    last: Option<String>,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let answer = handle(&registry, request).await;
    let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
    let (name, value) = API_VERSION;
    answer.headers_mut().insert(name, value);
    answer
}

async fn handle(registry: &Registry, request: Request) -> Result<Response, Error> {
    let method = request.method().clone();
    let path = request.uri().path().strip_prefix("/v2").unwrap_or_default();
    let endpoint = Endpoint::parse(path)?;
    let Query(asked) = Query::<Asked>::try_from_uri(request.uri())
        .map_err(|error| Error::Unsupported(error.body_text()))?;
    let reads = [Method::GET, Method::HEAD].contains(&method);
    match endpoint {
        Endpoint::Version if reads => Ok(Json(json!({})).into_response()),
        Endpoint::Catalog if reads => catalog(registry, asked).await,
        Endpoint::Tags(name) if reads => tags(registry, name, asked).await,
        Endpoint::Referrers(name, digest) if reads => {
            manifests::referrers(registry, name, digest, asked).await
        }
        Endpoint::Manifest(name, which) => match method {
            Method::PUT => manifests::put(registry, name, which, request).await,
            Method::DELETE => manifests::delete(registry, name, which).await,
            _ if reads => manifests::get(registry, name, which, method).await,
            _ => Err(unsupported(&request)),
        },
        Endpoint::Blob(name, digest) => match method {
            Method::DELETE => blobs::delete(registry, name, digest).await,
            _ if reads => {
                blobs::get(registry, name, digest, method, request.headers().clone()).await
            }
            _ => Err(unsupported(&request)),
        },
        Endpoint::Uploads(name) if method == Method::POST => {
            uploads::begin(registry, name, asked, request).await
        }
        Endpoint::Upload(name, id) => match method {
            Method::PATCH => uploads::append(registry, &name, &id, request).await,
            Method::PUT => uploads::finish(registry, name, &id, asked, request).await,
            Method::DELETE => uploads::cancel(registry, &name, &id),
            _ if reads => uploads::status(registry, &name, &id),
            _ => Err(unsupported(&request)),
        },
        _ => Err(unsupported(&request)),
    }
}

async fn catalog(registry: &Registry, asked: Asked) -> Result<Response, Error> {
    let page = asked.page()?;
    let n = page.n;
    let (repositories, more) = blocking(registry, move |it| it.repositories(&page)).await?;
    let next = next_page(more, "/v2/_catalog", n, repositories.last());
    Ok((next, Json(json!({"repositories": repositories}))).into_response())
}

async fn tags(registry: &Registry, name: Name, asked: Asked) -> Result<Response, Error> {
    let page = asked.page()?;
    let n = page.n;
    let path = format!("/v2/{name}/tags/list");
    let owned = name.clone();
    let (tags, more) = blocking(registry, move |it| it.tags(&owned, &page)).await?;
    let next = next_page(more, &path, n, tags.last());
    Ok((next, Json(json!({"name": name.as_str(), "tags": tags}))).into_response())
}

impl Asked {
    fn page(self) -> Result<Page, Error> {
        let n = self.n.map(|n| {
            n.parse()
                .map_err(|_| Error::PageInvalid(n.chars().take(80).collect()))
        });
        Ok(Page {
            n: n.transpose()?,
            last: self.last,
        })
    }
}

/// The link to the next page. Names and tags need no escapes in a query.
fn next_page(
    more: bool,
    path: &str,
    n: Option<u64>,
    last: Option<&String>,
) -> Option<[(HeaderName, String); 1]> {
    let last = last.filter(|_| more)?;
    let n = n.map_or_else(String::new, |n| format!("n={n}&"));
    Some([(LINK, format!("<{path}?{n}last={last}>; rel=\"next\""))])
}

fn unsupported(request: &Request) -> Error {
    let path: String = request.uri().path().chars().take(300).collect();
    Error::Unsupported(format!("{path} does not take {}", request.method()))
}

/// Runs blocking work on a blocking thread.
async fn blocking<T: Send + 'static>(
    registry: &Registry,
    work: impl FnOnce(&Registry) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let registry = registry.clone();
    let done = tokio::task::spawn_blocking(move || work(&registry)).await;
    done.map_err(|error| Error::Failed(error.to_string()))?
}
