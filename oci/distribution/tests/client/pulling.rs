//! Images from a registry.

use std::time::Duration;

use axum::{Router, body::Body, http::Response, routing::get};
use futures_util::{StreamExt, stream};
use oci_spec::image::{Arch, Digest};
use tucano_oci_distribution::client::{Bounds, Credentials, Remote};
use tucano_oci_image::{Platform, Store, digest_of};

use crate::{
    broken_connection::{BreakingProxy, Direction},
    kit::{INDEX, MANIFEST, Origin, bounds, index, publish, pull, put, remote, serve, spec, store},
};

fn whole(store: &Store, digest: &Digest) {
    let image = store.image(digest).unwrap();
    store.verify(&image).unwrap();
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let origin = Origin::new().serve().await;
    let base = format!("http://{}", origin.address);
    let layout = publish(&base, &spec(100_000), "team/noise", "1.0").await;
    let remote = remote(origin.address, Credentials::Anonymous);
    for which in [":1.0".to_owned(), format!("@{}", layout.manifest_digest)] {
        let place = tempfile::tempdir().unwrap();
        let store = store(&place);
        let digest = pull(&remote, &store, &format!("team/noise{which}"))
            .await
            .unwrap();
        assert_eq!(digest.to_string(), layout.manifest_digest);
        whole(&store, &digest);
    }
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_the_platform() {
    let origin = Origin::new().serve().await;
    let base = format!("http://{}", origin.address);
    let other = publish(&base, &spec(50).architecture("s390x"), "multi", "other").await;
    let own = publish(&base, &spec(60), "multi", "own").await;
    let host = Arch::default().to_string();
    let both = index(&[("s390x", &other), (&host, &own)]).to_string();
    put(&base, "multi", "both", INDEX, both.clone().into_bytes()).await;
    let nested = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": INDEX, "digest": digest_of(both.as_bytes()).to_string(), "size": both.len()}]});
    put(
        &base,
        "multi",
        "nested",
        INDEX,
        nested.to_string().into_bytes(),
    )
    .await;
    let foreign = index(&[("s390x", &other)]).to_string();
    put(&base, "multi", "foreign", INDEX, foreign.into_bytes()).await;

    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let remote = remote(origin.address, Credentials::Anonymous);
    for tag in ["both", "nested", "own"] {
        let digest = pull(&remote, &store, &format!("multi:{tag}"))
            .await
            .unwrap();
        assert_eq!(digest.to_string(), own.manifest_digest, "{tag}");
    }
    for tag in ["foreign", "other"] {
        let error = pull(&remote, &store, &format!("multi:{tag}"))
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("s390x") && error.contains(&host),
            "{tag}: {error}"
        );
    }
}

#[tokio::test]
async fn a_broken_transfer_is_resumed() {
    const BYTES: usize = 3 << 20;
    let origin = Origin::new().serve().await;
    let base = format!("http://{}", origin.address);
    publish(&base, &spec(BYTES), "noise", "1").await;
    let proxy = BreakingProxy::start(origin.address, 9, 300 << 10, Direction::Down).await;
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let remote = remote(proxy.address, Credentials::Anonymous);
    let digest = pull(&remote, &store, "noise:1").await.unwrap();
    whole(&store, &digest);
    assert_eq!(proxy.cuts_left(), 0);
    // Beginning anew after each cut would have taken more than twice as much; what is on the way when a connection is
    // cut comes twice.
    let came = usize::try_from(proxy.down()).unwrap();
    assert!(came < BYTES * 2, "{came} bytes for {BYTES}");
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_beginning() {
    let content = vec![7u8; 200_000];
    let digest = digest_of(&content);
    let path = format!("/v2/a/blobs/{digest}");
    let served = content.clone();
    // Takes no notice of Range.
    let server = serve(Router::new().route(&path, get(async move || served))).await;
    let proxy = BreakingProxy::start(server.address, 2, 50_000, Direction::Down).await;
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let remote = remote(proxy.address, Credentials::Anonymous);
    let name = "a".parse().unwrap();
    remote
        .fetch_blob(&store, &name, &digest, 200_000)
        .await
        .unwrap();
    assert!(store.contains(&digest) && proxy.cuts_left() == 0);
}

#[tokio::test]
async fn a_permanently_broken_registry_fails_without_a_trace() {
    let content = vec![7u8; 200_000];
    let digest = digest_of(&content);
    let path = format!("/v2/a/blobs/{digest}");
    let cut = async || {
        let first = stream::iter([Ok::<_, std::io::Error>(vec![7u8; 10])]);
        Body::from_stream(first.chain(stream::iter([Err(std::io::Error::other("cut"))])))
    };
    let server = serve(Router::new().route(&path, get(cut))).await;
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let remote = remote(server.address, Credentials::Anonymous);
    let name = "a".parse().unwrap();
    let error = remote
        .fetch_blob(&store, &name, &digest, 200_000)
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(!store.contains(&digest));
    assert_eq!(place.path().join("ingest").read_dir().unwrap().count(), 0);
}

async fn refused(remote: &Remote, reference: &str, bounds: &Bounds) -> String {
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let reference = reference.parse().unwrap();
    let pulled = remote
        .pull(&store, &reference, &Platform::host(), bounds)
        .await;
    pulled.unwrap_err().to_string()
}

#[tokio::test]
async fn missing_oversized_and_wrong_content_is_reported() {
    let origin = Origin::new().serve().await;
    let base = format!("http://{}", origin.address);
    let layout = publish(&base, &spec(10_000), "noise", "1").await;
    let remote = remote(origin.address, Credentials::Anonymous);
    let host = origin.address.to_string();
    let missing = refused(&remote, "noise:2", &bounds()).await;
    assert_eq!(missing, format!("the registry {host} has no image noise:2"));
    let small = Bounds {
        image_bytes: 5_000,
        ..bounds()
    };
    let error = refused(&remote, "noise:1", &small).await;
    assert!(
        error.contains(&layout.manifest_digest) && error.contains("5000"),
        "{error}"
    );
    let small = Bounds {
        document_bytes: 100,
        ..bounds()
    };
    let error = refused(&remote, "noise:1", &small).await;
    assert!(error.contains("more than 100 bytes"), "{error}");
}

#[tokio::test]
async fn wrong_digests_and_sizes_are_detected() {
    let wrong = |body: &'static str| {
        get(async move || {
            Response::builder()
                .header("content-type", MANIFEST)
                .body(Body::from(body))
                .unwrap()
        })
    };
    let digest = digest_of(b"right");
    let routes = Router::new()
        .route(&format!("/v2/a/manifests/{digest}"), wrong("wrong"))
        .route("/v2/a/manifests/text", wrong("<html>"))
        .route("/v2/a/manifests/neither", wrong("{}"))
        .route(&format!("/v2/a/blobs/{digest}"), get(async || "wrong"))
        .route(
            "/v2/a/manifests/silent",
            get(async || Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>())),
        );
    let server = serve(routes).await;
    let remote = remote(server.address, Credentials::Anonymous);
    for (reference, part) in [
        (format!("a@{digest}"), "with the digest"),
        ("a:text".to_owned(), "is malformed"),
        ("a:neither".to_owned(), "neither"),
    ] {
        let error = refused(&remote, &reference, &bounds()).await;
        assert!(error.contains(part), "{error}");
    }
    let short = Bounds {
        time: Duration::from_millis(50),
        ..bounds()
    };
    let error = refused(&remote, "a:silent", &short).await;
    assert!(error.contains("was not received within"), "{error}");

    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let name = "a".parse().unwrap();
    for (limit, part) in [(5, "digest"), (3, "more than 3 bytes")] {
        let error = remote
            .fetch_blob(&store, &name, &digest, limit)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!store.contains(&digest));
}

#[tokio::test]
async fn unreachable_and_plain_http_registries_are_reported() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let error = refused(&remote(nobody, Credentials::Anonymous), "a:1", &bounds()).await;
    assert!(
        error.contains("cannot reach") && error.contains(&nobody.to_string()),
        "{error}"
    );
    let origin = Origin::new().serve().await;
    let base = format!("https://{}", origin.address);
    let tls = crate::kit::remote_at(&base, Credentials::Anonymous, None).unwrap();
    let error = refused(&tls, "a:1", &bounds()).await;
    assert!(error.contains("cannot speak TLS"), "{error}");
    for base in ["ftp://a", "x", "http://"] {
        assert!(
            crate::kit::remote_at(base, Credentials::Anonymous, None).is_err(),
            "{base}"
        );
    }
    let noise = Some(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_vec());
    let unusable = crate::kit::remote_at("https://a", Credentials::Anonymous, noise);
    assert!(unusable.unwrap_err().to_string().contains("authorities"));
}
