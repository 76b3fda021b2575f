//! The protocol, request by request (OCI distribution specification 1.1).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tucano_oci_distribution::{Limits, Registry, router};
use tucano_oci_image::{Store, digest_of};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Place {
    directory: tempfile::TempDir,
    registry: Registry,
    store: Store,
    router: Router,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.json()["errors"][0]["code"], code, "{body}");
        assert!(
            !self.json()["errors"][0]["message"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
}

impl Place {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), tucano_oci_image::Limits::default()).unwrap();
        let registry = Registry::open(directory.path(), store.clone(), limits).unwrap();
        Self {
            directory,
            router: router(registry.clone()),
            registry,
            store,
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, &[], Body::empty()).await.status
    }

    /// Pushes a blob at once; gives its digest.
    async fn blob(&self, name: &str, content: &str) -> String {
        let digest = digest_of(content.as_bytes()).to_string();
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(
            self.send("POST", &path, &[], content.to_owned())
                .await
                .status,
            201
        );
        digest
    }

    /// Pushes an image of two blobs; gives its manifest's digest.
    async fn image(&self, name: &str, tag: &str, content: &str) -> String {
        let manifest = self.manifest(name, content).await.to_string();
        let put = self.put(name, tag, MANIFEST, &manifest).await;
        assert_eq!(put.status, 201, "{:?}", put.body);
        digest_of(manifest.as_bytes()).to_string()
    }

    async fn manifest(&self, name: &str, content: &str) -> Value {
        let config = self.blob(name, "{}").await;
        let layer = self.blob(name, content).await;
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": content.len()}],
        })
    }

    async fn put(&self, name: &str, reference: &str, media_type: &str, manifest: &str) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(
            "PUT",
            &path,
            &[("content-type", media_type)],
            manifest.to_owned(),
        )
        .await
    }

    async fn begin(&self) -> String {
        let begun = self
            .send("POST", "/v2/a/blobs/uploads/", &[], Body::empty())
            .await;
        assert_eq!((begun.status, begun.header("range")), (202, "0-0"));
        begun.header("location").to_owned()
    }

    fn files(&self, directory: &str) -> usize {
        std::fs::read_dir(self.directory.path().join(directory))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn it_reports_its_version_and_unsupported_methods() {
    let place = Place::new();
    for path in ["/v2/", "/v2"] {
        let answer = place.get(path).await;
        assert_eq!(
            (
                answer.status,
                answer.header("docker-distribution-api-version")
            ),
            (200, "registry/2.0")
        );
    }
    place
        .get("/v2/A/tags/list")
        .await
        .refused(400, "NAME_INVALID");
    place
        .get("/v2/a/tags/list")
        .await
        .refused(404, "NAME_UNKNOWN");
    place
        .send("PATCH", "/v2/a/tags/list", &[], Body::empty())
        .await
        .refused(405, "UNSUPPORTED");
    place
        .get("/v2/a/manifests/1")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    place
        .get("/v2/_catalog?n=x")
        .await
        .refused(400, "PAGINATION_NUMBER_INVALID");
}

#[tokio::test]
async fn a_blob_is_pushed_monolithically_and_read_whole_and_in_ranges() {
    let place = Place::new();
    let digest = place.blob("a/b", "0123456789").await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let whole = place.get(&path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(
        (
            whole.header("docker-content-digest"),
            whole.header("content-length")
        ),
        (digest.as_str(), "10")
    );
    let head = place.send("HEAD", &path, &[], Body::empty()).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, "10", 0)
    );
    let part = place
        .send("GET", &path, &[("range", "bytes=2-4")], Body::empty())
        .await;
    assert_eq!(
        (part.status, &part.body[..], part.header("content-range")),
        (206, &b"234"[..], "bytes 2-4/10")
    );
    let beyond = place
        .send("GET", &path, &[("range", "bytes=10-")], Body::empty())
        .await;
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, "bytes */10")
    );
    place
        .get(&path.replace("a/b", "other"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    assert_eq!(place.delete(&path).await, 202);
    place.get(&path).await.refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_pushed_in_pieces_in_order() {
    let place = Place::new();
    let location = place.begin().await;
    let piece = |range: &'static str, body: &'static str| {
        let location = location.clone();
        let place = &place;
        async move {
            place
                .send("PATCH", &location, &[("content-range", range)], body)
                .await
        }
    };
    assert_eq!(piece("0-2", "abc").await.header("range"), "0-2");
    piece("0-2", "abc")
        .await
        .refused(416, "BLOB_UPLOAD_INVALID");
    piece("4-5", "ef").await.refused(416, "BLOB_UPLOAD_INVALID");
    piece("x", "ef").await.refused(400, "BLOB_UPLOAD_INVALID");
    let status = place.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-2"));
    // Docker sends without Content-Range.
    let streamed = place.send("PATCH", &location, &[], "def").await;
    assert_eq!((streamed.status, streamed.header("range")), (202, "0-5"));
    place
        .send("PUT", &location, &[], "gh")
        .await
        .refused(400, "DIGEST_INVALID");
    assert_eq!(
        place.files("blobs/sha256"),
        0,
        "nothing is seen before it is whole"
    );
    let digest = digest_of(b"abcdefgh").to_string();
    let done = place
        .send(
            "PUT",
            &format!("{location}?digest={digest}"),
            &[("content-range", "6-7")],
            "gh",
        )
        .await;
    assert_eq!(
        (done.status, done.header("location")),
        (201, format!("/v2/a/blobs/{digest}").as_str())
    );
    place
        .get(&location)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!((place.files("blobs/sha256"), place.files("ingest")), (1, 0));
}

#[tokio::test]
async fn a_wrong_or_cancelled_upload_leaves_no_trace() {
    let place = Place::new();
    let digest = digest_of(b"right");
    let location = place.begin().await;
    let path = format!("{location}?digest={digest}");
    place
        .send("PUT", &path, &[], "wrong")
        .await
        .refused(400, "DIGEST_INVALID");
    place
        .send("PUT", &path, &[], "right")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    let at_once = format!("/v2/a/blobs/uploads/?digest={digest}");
    place
        .send("POST", &at_once, &[], "wrong")
        .await
        .refused(400, "DIGEST_INVALID");
    let other = format!("/v2/a/blobs/uploads/?digest=sha512:{}", "0".repeat(128));
    place
        .send("POST", &other, &[], "x")
        .await
        .refused(400, "DIGEST_INVALID");
    let location = place.begin().await;
    assert_eq!(place.delete(&location).await, 204);
    assert_eq!(place.delete(&location).await, 404);
    assert_eq!((place.files("blobs/sha256"), place.files("ingest")), (0, 0));
}

#[tokio::test]
async fn a_broken_connection_keeps_the_received_part() {
    let place = Place::new();
    let location = place.begin().await;
    let came = stream::iter([Ok::<_, std::io::Error>("abc")]);
    let broken = came.chain(stream::iter([Err(std::io::Error::other("reset"))]));
    let answer = place
        .send("PATCH", &location, &[], Body::from_stream(broken))
        .await;
    answer.refused(400, "BLOB_UPLOAD_INVALID");
    assert_eq!(place.get(&location).await.header("range"), "0-2");
    let digest = digest_of(b"abcdef");
    let path = format!("{location}?digest={digest}");
    assert_eq!(
        place
            .send("PUT", &path, &[("content-range", "3-5")], "def")
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn silent_clients_and_idle_uploads_are_removed() {
    let place = Place::with(Limits {
        body_idle: Duration::from_millis(20),
        session_idle: Duration::from_millis(40),
        ..Limits::default()
    });
    let location = place.begin().await;
    let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    place
        .send("PATCH", &location, &[], silent)
        .await
        .refused(408, "BLOB_UPLOAD_INVALID");
    let giving_up = place.registry.clone();
    let giving_up = tokio::spawn(async move { giving_up.give_up_uploads().await });
    tokio::time::timeout(Duration::from_secs(60), async {
        while place.files("ingest") > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    giving_up.abort();
    place
        .get(&location)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn sizes_and_concurrent_uploads_are_limited() {
    let place = Place::with(Limits {
        blob_bytes: 4,
        manifest_bytes: 40,
        sessions: 1,
        ..Limits::default()
    });
    let digest = digest_of(b"12345");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    place
        .send("POST", &path, &[], "12345")
        .await
        .refused(413, "SIZE_INVALID");
    let large = format!("{:41}", "{}");
    place
        .put("a", "1", MANIFEST, &large)
        .await
        .refused(413, "SIZE_INVALID");
    place.begin().await;
    place
        .send("POST", "/v2/a/blobs/uploads/", &[], Body::empty())
        .await
        .refused(429, "TOOMANYREQUESTS");
    assert_eq!(place.files("blobs/sha256"), 0);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let place = Place::new();
    let digest = place.blob("a", "x").await;
    let mount = |query: String| {
        let place = &place;
        async move {
            let path = format!("/v2/b/blobs/uploads/?{query}");
            place.send("POST", &path, &[], Body::empty()).await
        }
    };
    assert_eq!(
        mount(format!("mount={digest}&from=other")).await.status,
        202,
        "it is to be pushed"
    );
    assert_eq!(
        mount(format!("mount={}", digest_of(b"absent")))
            .await
            .status,
        202
    );
    place
        .get(&format!("/v2/b/blobs/{digest}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    let mounted = mount(format!("mount={digest}&from=a")).await;
    assert_eq!(
        (mounted.status, mounted.header("location")),
        (201, format!("/v2/b/blobs/{digest}").as_str())
    );
    assert_eq!(place.get(&format!("/v2/b/blobs/{digest}")).await.body, "x");
}

#[tokio::test]
async fn an_image_is_pushed_pulled_retagged_and_deleted() {
    let place = Place::new();
    let first = place.image("team/hello", "1", "layer").await;
    let by_tag = place.get("/v2/team/hello/manifests/1").await;
    assert_eq!(
        (
            by_tag.header("content-type"),
            by_tag.header("docker-content-digest")
        ),
        (MANIFEST, first.as_str())
    );
    let path = format!("/v2/team/hello/manifests/{first}");
    assert_eq!(place.get(&path).await.body, by_tag.body);
    let head = place.send("HEAD", &path, &[], Body::empty()).await;
    assert_eq!(head.header("content-length"), by_tag.body.len().to_string());

    let second = place.image("team/hello", "1", "another layer").await;
    assert_ne!(first, second);
    assert_eq!(
        place
            .get("/v2/team/hello/manifests/1")
            .await
            .header("docker-content-digest"),
        second
    );
    let layer = digest_of(b"another layer");
    let answer = place
        .send(
            "DELETE",
            &format!("/v2/team/hello/blobs/{layer}"),
            &[],
            Body::empty(),
        )
        .await;
    answer.refused(405, "UNSUPPORTED");
    assert_eq!(place.delete("/v2/team/hello/manifests/1").await, 202);
    place
        .get("/v2/team/hello/manifests/1")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(place.delete(&path).await, 202);
    assert_eq!(place.delete(&path).await, 404);
}

#[tokio::test]
async fn a_manifest_is_checked_before_it_is_stored() {
    let place = Place::new();
    let manifest = place.manifest("a", "layer").await;
    place
        .put("b", "1", MANIFEST, &manifest.to_string())
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    let mut wrong = manifest.clone();
    wrong["layers"][0]["size"] = json!(99);
    place
        .put("a", "1", MANIFEST, &wrong.to_string())
        .await
        .refused(400, "MANIFEST_INVALID");
    place
        .put("a", "1", MANIFEST, "{")
        .await
        .refused(400, "MANIFEST_INVALID");
    place
        .put("a", "1", INDEX, &manifest.to_string())
        .await
        .refused(400, "MANIFEST_INVALID");
    place
        .put("a", "-", MANIFEST, &manifest.to_string())
        .await
        .refused(400, "TAG_INVALID");
    let other = digest_of(b"other").to_string();
    place
        .put("a", &other, MANIFEST, &manifest.to_string())
        .await
        .refused(400, "DIGEST_INVALID");
    let index = |digest: &str, size: usize| {
        json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": size}]}).to_string()
    };
    place
        .put("a", "all", INDEX, &index(&other, 1))
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    let digest = place.image("a", "1", "layer").await;
    let size = place.get("/v2/a/manifests/1").await.body.len();
    assert_eq!(
        place
            .put("a", "all", INDEX, &index(&digest, size))
            .await
            .status,
        201
    );
    assert_eq!(
        place
            .get("/v2/a/manifests/all")
            .await
            .header("content-type"),
        INDEX
    );
}

#[tokio::test]
async fn lists_are_paginated() {
    let place = Place::new();
    for tag in ["b", "A", "c"] {
        place.image("x", tag, "layer").await;
        place
            .image(&format!("repo/{}", tag.to_lowercase()), "1", "layer")
            .await;
    }
    for tag in ["b", "B", "a", "C"] {
        place.image("cases", tag, "layer").await;
    }
    let cases = place.get("/v2/cases/tags/list").await.json();
    assert_eq!(cases["tags"], json!(["a", "B", "b", "C"]));
    let rest = place.get("/v2/cases/tags/list?n=2&last=B").await.json();
    assert_eq!(rest["tags"], json!(["b", "C"]));
    let tags = |query: &'static str| {
        let place = &place;
        async move {
            let answer = place.get(&format!("/v2/x/tags/list{query}")).await;
            (
                answer.json()["tags"].clone(),
                answer.header("link").to_owned(),
            )
        }
    };
    assert_eq!(tags("").await, (json!(["A", "b", "c"]), String::new()));
    let link = "</v2/x/tags/list?n=2&last=b>; rel=\"next\"".to_owned();
    assert_eq!(tags("?n=2").await, (json!(["A", "b"]), link));
    assert_eq!(tags("?n=2&last=b").await, (json!(["c"]), String::new()));
    assert_eq!(tags("?n=0").await, (json!([]), String::new()));
    let catalog = place.get("/v2/_catalog?n=3&last=cases").await;
    assert_eq!(
        catalog.json()["repositories"],
        json!(["repo/a", "repo/b", "repo/c"])
    );
    assert_eq!(
        catalog.header("link"),
        "</v2/_catalog?n=3&last=repo/c>; rel=\"next\""
    );
}

#[tokio::test]
async fn referrers_of_a_manifest_are_listed() {
    let place = Place::new();
    let image = place.image("a", "1", "layer").await;
    let path = format!("/v2/a/referrers/{image}");
    assert_eq!(place.get(&path).await.json()["manifests"], json!([]));
    let mut signature = place.manifest("a", "signature").await;
    signature["artifactType"] = json!("application/x.signature");
    signature["annotations"] = json!({"by": "me"});
    signature["subject"] = json!({"mediaType": MANIFEST, "digest": image, "size": 1});
    let digest = digest_of(signature.to_string().as_bytes()).to_string();
    let put = place
        .put("a", &digest, MANIFEST, &signature.to_string())
        .await;
    assert_eq!(
        (put.status, put.header("oci-subject")),
        (201, image.as_str())
    );
    let listed = place
        .get(&format!("{path}?artifactType=application/x.signature"))
        .await;
    assert_eq!(
        (
            listed.header("content-type"),
            listed.header("oci-filters-applied")
        ),
        (INDEX, "artifactType")
    );
    let expected = json!([{
        "mediaType": MANIFEST, "digest": digest, "size": signature.to_string().len(),
        "artifactType": "application/x.signature", "annotations": {"by": "me"},
    }]);
    assert_eq!(listed.json()["manifests"], expected);
    let other = place.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(other.json()["manifests"], json!([]));
}

#[tokio::test]
async fn tagged_and_recent_content_is_not_collected() {
    let place = Place::with(Limits {
        untagged_kept: Duration::ZERO,
        ..Limits::default()
    });
    place.image("a", "1", "layer").await;
    let location = place.begin().await;
    let stray = place.blob("a", "stray").await;
    let collect = || {
        let removed = place
            .registry
            .collect(|kept| place.store.retain_with(&[], kept));
        removed.unwrap().unwrap()
    };
    assert_eq!(collect(), 5, "the stray blob alone");
    place
        .get(&format!("/v2/a/blobs/{stray}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    assert_eq!(
        place
            .get(&format!("/v2/a/blobs/{}", digest_of(b"layer")))
            .await
            .status,
        200
    );
    assert_eq!(place.get(&location).await.status, 204, "an upload goes on");
    assert_eq!(place.delete("/v2/a/manifests/1").await, 202);
    assert!(collect() > 0);
    assert_eq!(place.files("blobs/sha256"), 0);
}

#[tokio::test]
async fn concurrent_pushes_and_collection_are_safe() {
    let place = Place::new();
    let push = async || {
        for _ in 0..10 {
            place.image("a", "1", "layer").await;
        }
    };
    let collecting = {
        let (registry, store) = (place.registry.clone(), place.store.clone());
        tokio::task::spawn_blocking(move || {
            for _ in 0..30 {
                registry
                    .collect(|kept| store.retain_with(&[], kept))
                    .unwrap()
                    .unwrap();
            }
        })
    };
    tokio::join!(push(), push(), push());
    collecting.await.unwrap();
    assert_eq!(place.get("/v2/a/manifests/1").await.status, StatusCode::OK);
    assert_eq!(
        place
            .get(&format!("/v2/a/blobs/{}", digest_of(b"layer")))
            .await
            .body,
        "layer"
    );
    assert_eq!((place.files("blobs/sha256"), place.files("ingest")), (3, 0));
}

#[tokio::test]
async fn acknowledged_content_and_uploads_survive_a_restart() {
    let place = Place::new();
    place.image("a", "1", "layer").await;
    let location = place.begin().await;
    assert_eq!(
        place.send("PATCH", &location, &[], "half").await.status,
        202
    );
    // As a killed program leaves it: nothing of the old one is dropped before the new one starts.
    let left = place.directory.path().join("ingest/.tmp-left");
    std::fs::create_dir(&left).unwrap();
    let store = Store::open(place.directory.path(), tucano_oci_image::Limits::default()).unwrap();
    let registry =
        Registry::open(place.directory.path(), store.clone(), Limits::default()).unwrap();
    let again = Place {
        directory: tempfile::tempdir().unwrap(),
        router: router(registry.clone()),
        registry,
        store,
    };
    assert_eq!(again.get("/v2/a/manifests/1").await.status, 200);
    assert!(!left.exists());
    assert_eq!(again.get(&location).await.header("range"), "0-3");
    let digest = digest_of(b"half and half");
    let path = format!("{location}?digest={digest}");
    let headers = [("content-range", "4-12")];
    let done = again.send("PUT", &path, &headers, " and half").await;
    assert_eq!(done.status, 201, "{:?}", done.body);
    let blob = again.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(blob.body, "half and half");
    let kept = place.directory.path().join("uploads/a");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
}
