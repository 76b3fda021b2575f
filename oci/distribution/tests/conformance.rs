//! What the specification's own conformance suite asks of a registry, workflow by workflow: pull, push, content
//! discovery, content management; and the kinds of manifests that it pushes. Each request as a client sends it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tucano_oci_distribution::{Limits, Registry, router};
use tucano_oci_image::{Digest, Store, digest_like, digest_of};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

struct Place {
    _directory: tempfile::TempDir,
    router: Router,
}

#[derive(Debug)]
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
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), tucano_oci_image::Limits::default()).unwrap();
        let registry = Registry::open(directory.path(), store, Limits::default()).unwrap();
        Self {
            router: router(registry),
            _directory: directory,
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

    async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }

    /// Begins an upload; gives where it goes on.
    async fn begin(&self) -> String {
        let headers = [("content-length", "0")];
        let path = "/v2/repo/blobs/uploads/";
        let begun = self.send("POST", path, &headers, Body::empty()).await;
        begun.is(202).header("location").to_owned()
    }

    async fn blob(&self, content: &str) -> String {
        let digest = digest_of(content.as_bytes()).to_string();
        let path = format!("/v2/repo/blobs/uploads/?digest={digest}");
        let headers = [("content-type", "application/octet-stream")];
        self.send("POST", &path, &headers, content.to_owned())
            .await
            .is(201);
        digest
    }

    /// Pushes a document under a tag and gives its digest.
    async fn document(&self, tag: &str, kind: &str, document: &Value) -> String {
        let text = document.to_string();
        let digest = digest_of(text.as_bytes()).to_string();
        let path = format!("/v2/repo/manifests/{tag}");
        let put = self
            .send("PUT", &path, &[("content-type", kind)], text)
            .await
            .is(201);
        assert_eq!(put.header("docker-content-digest"), digest);
        let location = put.header("location").to_owned();
        assert_eq!(
            digest_of(&self.get(&location).await.is(200).body).to_string(),
            digest
        );
        digest
    }

    async fn descriptor(&self, kind: &str, content: &str) -> Value {
        let digest = self.blob(content).await;
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    }

    async fn image(&self, content: &str) -> Value {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.descriptor(CONFIG, &format!("{{\"of\": \"{content}\"}}")).await,
            "layers": [self.descriptor(LAYER, content).await],
        })
    }

    async fn artifact(&self, content: &str, kind: &str) -> Value {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": self.descriptor(EMPTY, "{}").await,
            "layers": [self.descriptor(kind, content).await],
        })
    }
}

fn described(kind: &str, document: &Value) -> Value {
    let text = document.to_string();
    let digest = digest_of(text.as_bytes()).to_string();
    json!({"mediaType": kind, "digest": digest, "size": text.len()})
}

#[tokio::test]
async fn pull() {
    let place = Place::new();
    place.get("/v2/").await.is(200);
    let absent = digest_of(b"absent");
    for path in [
        format!("/v2/repo/blobs/{absent}"),
        format!("/v2/repo/manifests/{absent}"),
        "/v2/repo/manifests/absent".to_owned(),
    ] {
        place.head(&path).await.is(404);
        place.get(&path).await.is(404);
    }
    let image = place.image("layer").await;
    let digest = place.document("tag", MANIFEST, &image).await;
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    let length = image.to_string().len().to_string();
    for which in ["tag", &digest] {
        let path = format!("/v2/repo/manifests/{which}");
        for answer in [
            place.head(&path).await.is(200),
            place.get(&path).await.is(200),
        ] {
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-length"), length);
            assert_eq!(answer.header("content-type"), MANIFEST);
        }
    }
    let path = format!("/v2/repo/blobs/{layer}");
    assert_eq!(
        place.head(&path).await.is(200).header("content-length"),
        "5"
    );
    assert_eq!(place.get(&path).await.is(200).body, "layer");
    let part = place
        .send("GET", &path, &[("range", "bytes=1-2")], Body::empty())
        .await;
    assert_eq!(part.is(206).body, "ay");
    for malformed in [
        "/v2/repo/blobs/sha256:totallywrong",
        "/v2/repo/manifests/sha256:totallywrong",
    ] {
        let answer = place.get(malformed).await.is(400);
        assert_eq!(answer.json()["errors"][0]["code"], "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn push_of_blobs_streamed_monolithic_and_chunked() {
    let place = Place::new();
    let octets = ("content-type", "application/octet-stream");
    let (first, second) = ("first chunk, ", "second chunk");
    let whole = format!("{first}{second}");
    let digest = digest_of(whole.as_bytes()).to_string();

    let at = place.begin().await;
    let patched = place
        .send("PATCH", &at, &[octets], whole.clone())
        .await
        .is(202);
    let at = format!("{}?digest={digest}", patched.header("location"));
    let put = place
        .send(
            "PUT",
            &at,
            &[octets, ("content-length", "0")],
            Body::empty(),
        )
        .await
        .is(201);
    assert_eq!(
        place.get(put.header("location")).await.is(200).body,
        whole.as_str()
    );

    let other = digest_of(b"monolithic").to_string();
    let at = format!("{}?digest={other}", place.begin().await);
    let put = place
        .send(
            "PUT",
            &at,
            &[octets, ("content-length", "10")],
            "monolithic",
        )
        .await
        .is(201);
    place.get(put.header("location")).await.is(200);

    let last = whole.len() - 1;
    let ranges = [
        format!("0-{}", first.len() - 1),
        format!("{}-{last}", first.len()),
    ];
    let chunk = |at: &str, range: &str, content: &'static str| {
        let (place, at, range) = (&place, at.to_owned(), range.to_owned());
        async move {
            let length = content.len().to_string();
            let headers = [
                octets,
                ("content-length", &length),
                ("content-range", &range),
            ];
            place.send("PATCH", &at, &headers, content).await
        }
    };
    let at = place.begin().await;
    chunk(&at, &ranges[1], second).await.is(416);
    let at = place.begin().await;
    let patched = chunk(&at, &ranges[0], first).await.is(202);
    assert_eq!(patched.header("range"), ranges[0]);
    chunk(&at, &ranges[0], first).await.is(416);
    let status = place.get(&at).await.is(204);
    assert_eq!(
        (status.header("range"), status.header("location")),
        (ranges[0].as_str(), at.as_str())
    );
    let patched = chunk(patched.header("location"), &ranges[1], second)
        .await
        .is(202);
    assert_eq!(patched.header("range"), format!("0-{last}"));
    let at = format!("{}?digest={digest}", patched.header("location"));
    place
        .send("PUT", &at, &[("content-length", "0")], Body::empty())
        .await
        .is(201);

    let at = place.begin().await;
    chunk(&at, &ranges[0], first).await.is(202);
    let at = format!("{at}?digest={digest}");
    let headers = [octets, ("content-range", ranges[1].as_str())];
    place.send("PUT", &at, &headers, second).await.is(201);

    let at = place.begin().await;
    place.delete(&at).await.is(204);
    place.get(&at).await.is(404);
}

#[tokio::test]
async fn blobs_may_go_by_sha512() {
    let place = Place::new();
    // FIPS 180-4's own example.
    let digest = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    let path = format!("/v2/repo/blobs/uploads/?digest={digest}");
    place.send("POST", &path, &[], "abd").await.is(400);
    place.send("POST", &path, &[], "abc").await.is(201);
    let blob = format!("/v2/repo/blobs/{digest}");
    let got = place.get(&blob).await.is(200);
    assert_eq!(
        (got.header("docker-content-digest"), &got.body[..]),
        (digest, &b"abc"[..])
    );
    let mut image = place.image("layer").await;
    image["layers"][0] = json!({"mediaType": LAYER, "digest": digest, "size": 3});
    place.document("sha512", MANIFEST, &image).await;
    let at = place.begin().await;
    place.send("PATCH", &at, &[], "abc").await.is(202);
    place
        .send("PUT", &format!("{at}?digest={digest}"), &[], Body::empty())
        .await
        .is(201);
}

#[tokio::test]
async fn manifests_may_go_by_sha512() {
    let place = Place::new();
    let image = place.image("layer").await;
    let text = image.to_string();
    let any: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let digest = digest_like(&any, text.as_bytes()).to_string();
    let path = format!("/v2/repo/manifests/{digest}");
    let is_manifest = [("content-type", MANIFEST)];
    let other = format!("/v2/repo/manifests/{any}");
    let body = || Body::from(text.clone());
    place
        .send("PUT", &other, &is_manifest, body())
        .await
        .is(400);
    let put = place.send("PUT", &path, &is_manifest, body()).await.is(201);
    assert_eq!(put.header("docker-content-digest"), digest);
    assert_eq!(put.header("location"), path);
    let got = place.get(&path).await.is(200);
    assert_eq!(got.header("docker-content-digest"), digest);
    assert_eq!(got.body, text.as_bytes());
    // It has its other digest too, and is a single manifest.
    let own = format!("/v2/repo/manifests/{}", digest_of(text.as_bytes()));
    let got = place.get(&own).await.is(200);
    assert_eq!(
        got.header("docker-content-digest"),
        digest_of(text.as_bytes()).to_string()
    );
    // An index may refer to it so.
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": digest, "size": text.len()}]});
    place.document("both", INDEX, &index).await;
    place.delete(&path).await.is(202);
    place.get(&path).await.is(404);
    place.get(&own).await.is(404);
}

#[tokio::test]
async fn push_by_mounting() {
    let place = Place::new();
    let digest = place.blob("mounted").await;
    for query in [
        format!("mount={digest}&from=repo"),
        format!("mount={digest}"),
    ] {
        let path = format!("/v2/other/blobs/uploads/?{query}");
        let mounted = place.send("POST", &path, &[], Body::empty()).await.is(201);
        assert_eq!(
            place.get(mounted.header("location")).await.is(200).body,
            "mounted"
        );
    }
    let absent = digest_of(b"absent");
    let path = format!("/v2/other/blobs/uploads/?mount={absent}&from=repo");
    let begun = place.send("POST", &path, &[], Body::empty()).await.is(202);
    place.get(begun.header("location")).await.is(204);
}

#[tokio::test]
async fn push_of_every_kind_of_manifest() {
    let place = Place::new();
    let image = place.image("layer").await;
    place.document("image", MANIFEST, &image).await;
    let mut uncompressed = place.image("plain").await;
    uncompressed["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    place
        .document("uncompressed", MANIFEST, &uncompressed)
        .await;
    let mut large = image.clone();
    let annotations: Vec<_> = (0..390)
        .map(|n| (format!("large-{n}"), json!("A".repeat(10_000))))
        .collect();
    large["annotations"] = Value::Object(annotations.into_iter().collect());
    place.document("large", MANIFEST, &large).await;
    let mut none = image.clone();
    none["layers"] = json!([]);
    place.document("no-layers", MANIFEST, &none).await;
    let mut custom = image.clone();
    custom["org.example.field"] = json!({"any": ["thing"]});
    place.document("custom-fields", MANIFEST, &custom).await;
    let mut data = image.clone();
    data["layers"][0]["data"] = json!("bGF5ZXI=");
    place.document("data-field", MANIFEST, &data).await;
    let mut foreign = image.clone();
    let absent = digest_of(b"absent").to_string();
    foreign["layers"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": absent, "size": 9, "urls": ["https://store.example.com/x"],
    }));
    place
        .document("non-distributable", MANIFEST, &foreign)
        .await;
    let artifact = place
        .artifact("content", "application/vnd.example.type")
        .await;
    place.document("artifact", MANIFEST, &artifact).await;
    let mut bare = artifact.clone();
    bare["layers"] = json!([place.descriptor(EMPTY, "{}").await]);
    place
        .document("artifact-without-layers", MANIFEST, &bare)
        .await;
    let index =
        |manifests: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    place
        .document("empty-index", INDEX, &index(json!([])))
        .await;
    let inner = index(json!([
        described(MANIFEST, &image),
        described(MANIFEST, &artifact)
    ]));
    place.document("index", INDEX, &inner).await;
    place
        .document(
            "index-of-index",
            INDEX,
            &index(json!([described(INDEX, &inner)])),
        )
        .await;
}

#[tokio::test]
async fn discovery_of_tags_and_referrers() {
    let place = Place::new();
    let image = place.image("layer").await;
    let tags: Vec<String> = (0..4).map(|n| format!("test{n}")).collect();
    for tag in &tags {
        place.document(tag, MANIFEST, &image).await;
    }
    let listed = place.get("/v2/repo/tags/list").await.is(200).json();
    assert_eq!(listed, json!({"name": "repo", "tags": tags}));
    let limited = place.get("/v2/repo/tags/list?n=2").await.is(200).json();
    assert_eq!(limited["tags"], json!(tags[..2]));
    let rest = place
        .get("/v2/repo/tags/list?n=2&last=test1")
        .await
        .is(200)
        .json();
    assert_eq!(rest["tags"], json!(tags[2..]));

    let nobody = digest_of(b"nobody's subject");
    let none = place
        .get(&format!("/v2/repo/referrers/{nobody}"))
        .await
        .is(200);
    assert_eq!(
        (none.header("content-type"), &none.json()["manifests"]),
        (INDEX, &json!([]))
    );
    let (one, two) = ("application/vnd.example.one", "application/vnd.example.two");
    let subjects = [
        described(MANIFEST, &image),
        json!({"mediaType": MANIFEST, "digest": nobody.to_string(), "size": 123}),
    ];
    for subject in subjects {
        let about = subject["digest"].as_str().unwrap().to_owned();
        let mut all = vec![];
        for (kind, note) in [(one, "first"), (two, "second")] {
            let mut artifact = place.artifact(note, kind).await;
            artifact["subject"] = subject.clone();
            artifact["annotations"] = json!({"org.example.note": note});
            let text = artifact.to_string();
            let path = format!("/v2/repo/manifests/{}", digest_of(text.as_bytes()));
            let put = place
                .send("PUT", &path, &[("content-type", MANIFEST)], text)
                .await
                .is(201);
            assert_eq!(put.header("oci-subject"), about);
            let mut entry = described(MANIFEST, &artifact);
            entry["artifactType"] = json!(kind);
            entry["annotations"] = artifact["annotations"].clone();
            all.push(entry);
        }
        all.sort_by_key(|it| it["digest"].to_string());
        let path = format!("/v2/repo/referrers/{about}");
        let listed = place.get(&path).await.is(200).json();
        assert_eq!(listed["manifests"], json!(all));
        assert_eq!(
            (&listed["schemaVersion"], &listed["mediaType"]),
            (&json!(2), &json!(INDEX))
        );
        let filtered = place
            .get(&format!("{path}?artifactType={one}"))
            .await
            .is(200);
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
        let expected: Vec<_> = all.iter().filter(|it| it["artifactType"] == one).collect();
        assert_eq!(filtered.json()["manifests"], json!(expected));
    }
    // An image that is about another one goes by the type of its configuration.
    let mut about = place.image("about").await;
    about["subject"] = described(MANIFEST, &image);
    place.document("about", MANIFEST, &about).await;
    let subject = described(MANIFEST, &image)["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let kind = CONFIG.replace('+', "%2B");
    let path = format!("/v2/repo/referrers/{subject}?artifactType={kind}");
    assert_eq!(
        place.get(&path).await.json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn content_management() {
    let place = Place::new();
    let image = place.image("layer").await;
    let digest = place.document("tag", MANIFEST, &image).await;
    place.document("other", MANIFEST, &image).await;
    place.delete("/v2/repo/manifests/tag").await.is(202);
    place.get("/v2/repo/manifests/tag").await.is(404);
    place
        .delete(&format!("/v2/repo/manifests/{digest}"))
        .await
        .is(202);
    for which in [digest.as_str(), "other"] {
        place
            .get(&format!("/v2/repo/manifests/{which}"))
            .await
            .is(404);
    }
    for blob in [&image["config"], &image["layers"][0]] {
        let path = format!("/v2/repo/blobs/{}", blob["digest"].as_str().unwrap());
        place.delete(&path).await.is(202);
        place.get(&path).await.is(404);
        place.delete(&path).await.is(404);
    }
    let tags = place.get("/v2/repo/tags/list").await;
    assert!([200, 404].contains(&tags.status));
}
