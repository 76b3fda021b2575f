//! A blob that the disk has damaged is missing from then on: clients send it again, as they do with what is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tucano_oci_distribution::{Limits, Registry, router};
use tucano_oci_image::{Store, digest_of};

async fn send(
    router: &Router,
    method: &str,
    path: &str,
    body: &'static str,
) -> (StatusCode, Vec<u8>) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body))
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    (
        status,
        answer
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
}

#[tokio::test]
async fn a_damaged_blob_can_be_pushed_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), tucano_oci_image::Limits::default()).unwrap();
    let registry = Registry::open(directory.path(), store, Limits::default()).unwrap();
    let router = router(registry);
    let digest = digest_of(b"content");
    let (blob, upload) = (
        format!("/v2/a/blobs/{digest}"),
        format!("/v2/a/blobs/uploads/?digest={digest}"),
    );
    assert_eq!(
        send(&router, "POST", &upload, "content").await.0,
        StatusCode::CREATED
    );
    assert_eq!(send(&router, "HEAD", &blob, "").await.0, StatusCode::OK);
    let stored = directory.path().join("blobs/sha256").join(digest.digest());
    std::fs::write(stored, "contenT").unwrap();
    assert_eq!(
        send(&router, "HEAD", &blob, "").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(&router, "POST", &upload, "content").await.0,
        StatusCode::CREATED
    );
    let (status, content) = send(&router, "GET", &blob, "").await;
    assert_eq!((status, &content[..]), (StatusCode::OK, &b"content"[..]));
}
