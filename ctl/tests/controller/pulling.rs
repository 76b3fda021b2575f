//! Images of other registries (a second controller), and of archives with several images.

use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tucano_image_builder::{ImageSpec, Layout};

use crate::{
    ctl::{Answer, Ctl, config},
    image,
};

pub(crate) const PASSWORD: &str = "0123456789abcdef-other";

/// Pushes an image to a controller's registry.
pub(crate) async fn push(ctl: &Ctl, spec: &ImageSpec, name: &str, tag: &str) -> Layout {
    let layout = spec.build().unwrap();
    let put = async |request: reqwest::RequestBuilder| {
        let answer = ctl.send(request.bearer_auth(PASSWORD)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    };
    for (path, content) in &layout.files {
        let Some(hex) = path.strip_prefix("blobs/sha256/") else {
            continue;
        };
        let url = ctl.url(&format!("/v2/{name}/blobs/uploads/?digest=sha256:{hex}"));
        put(ctl.http().post(url).body(content.clone())).await;
    }
    let manifest = &layout.files[&format!("blobs/{}", layout.manifest_digest.replace(':', "/"))];
    let url = ctl.url(&format!("/v2/{name}/manifests/{tag}"));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let request = ctl.http().put(url).header("content-type", kind);
    put(request.body(manifest.clone())).await;
    layout
}

pub(crate) async fn other() -> Ctl {
    Ctl::start(&config(1, &format!("token = \"{PASSWORD}\""), "")).await
}

pub(crate) fn listing(other: &Ctl, more: &str) -> String {
    format!(
        "[[registry]]\nhost = \"{}\"\nplain_http = true\n{more}",
        other.address()
    )
}

fn body(image: &str) -> Value {
    json!({"name": "hello", "concurrency": 1, "port": 8080, "image": image})
}

async fn deploy(ctl: &Ctl, image: &str) -> Answer {
    ctl.request(Method::POST, "/v1/services", &body(image))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_listed_registry_is_pulled_by_tag_and_digest() {
    let other = other().await;
    let one = push(&other, &image::spec("one"), "team/hello", "1").await;
    let two = push(&other, &image::spec("two"), "team/hello", "2").await;
    let login = format!("user = \"me\"\npassword = \"{PASSWORD}\"");
    let ctl = Ctl::start(&config(1, "", &listing(&other, &login))).await;
    let host = other.address();
    let deployed = deploy(&ctl, &format!("{host}/team/hello:1"))
        .await
        .expect(201);
    assert_eq!(deployed["image"], one.manifest_digest);
    let patch = json!({"image": format!("{host}/team/hello@{}", two.manifest_digest)});
    let patched = ctl
        .request(Method::PATCH, "/v1/services/hello", &patch)
        .await
        .expect(200);
    assert_eq!(patched["image"], two.manifest_digest);
    for layout in [one, two] {
        let blob = format!("/v2/tucano/images/blobs/{}", layout.manifest_digest);
        assert_eq!(ctl.get(&blob).await.status, 200);
    }
    let missing = deploy(&ctl, &format!("{host}/team/hello:3")).await;
    let error = missing.refused(404, "no_such_image");
    assert!(
        error.contains("team/hello:3") && error.contains(&host.to_string()),
        "{error}"
    );
    let shown = ctl.get("/v1/config").await.expect(200);
    let expected =
        json!([{"host": host.to_string(), "plain_http": true, "credentials": true, "ca": false}]);
    assert_eq!(shown["registries"], expected);
    assert!(!ctl.log().contains(PASSWORD) && !shown.to_string().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pull_is_explained_and_changes_nothing() {
    let other = other().await;
    push(
        &other,
        &image::spec("s390x").architecture("s390x"),
        "foreign",
        "1",
    )
    .await;
    let wrong = "token = \"wrong-wrong-wrong-wrong\"";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let tables = format!(
        "[limits]\npull = \"30s\"\n{}\n[[registry]]\nhost = \"{nobody}\"",
        listing(&other, wrong)
    );
    let mut ctl = Ctl::start(&config(1, "", &tables)).await;
    let host = other.address();
    for (image, status, code, part) in [
        (
            format!("{host}/foreign:1"),
            422,
            "registry_refuses",
            "does not accept the token",
        ),
        (
            format!("{nobody}/a:1"),
            502,
            "registry_failed",
            "cannot reach",
        ),
        (format!("{host}/foreign"), 400, "no_image", "name:tag"),
        (
            "elsewhere.example/a:1".to_owned(),
            422,
            "unknown_registry",
            "[[registry]]",
        ),
        (
            "localhost:1/a:1".to_owned(),
            422,
            "unknown_registry",
            "localhost:1",
        ),
    ] {
        let error = deploy(&ctl, &image).await.refused(status, code);
        assert!(
            error.contains(part) && !error.contains("wrong-wrong"),
            "{image}: {error}"
        );
    }
    let right = listing(&other, &format!("token = \"{PASSWORD}\""));
    ctl.write_config(&config(1, "", &right));
    ctl.request(Method::POST, "/v1/config/reload", &json!({}))
        .await
        .expect(200);
    let error = deploy(&ctl, &format!("{host}/foreign:1"))
        .await
        .refused(422, "wrong_architecture");
    assert!(error.contains("s390x"), "{error}");
    assert_eq!(ctl.get("/v1/services").await.expect(200), json!([]));
    ctl.eventually("what came of it to be removed", async |ctl| {
        ctl.blobs().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_from_an_unresponsive_registry_times_out() {
    // The kernel accepts connections, no program reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap();
    let tables =
        format!("[limits]\npull = \"200ms\"\n[[registry]]\nhost = \"{host}\"\nplain_http = true");
    let ctl = Ctl::start(&config(1, "", &tables)).await;
    let error = deploy(&ctl, &format!("{host}/a:1"))
        .await
        .refused(504, "pull_timeout");
    assert!(error.contains("200ms"), "{error}");
}

/// A layout with two images, each under its name.
fn two_images() -> (Vec<u8>, [String; 2]) {
    let mut files = std::collections::BTreeMap::new();
    let mut manifests = Vec::new();
    let mut digests = Vec::new();
    for name in ["one", "two"] {
        let layout = image::spec(name).build().unwrap();
        let index: Value = serde_json::from_slice(&layout.files["index.json"]).unwrap();
        let mut descriptor = index["manifests"][0].clone();
        let full = format!("docker.io/library/hello:{name}");
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": full});
        manifests.push(descriptor);
        digests.push(layout.manifest_digest.clone());
        files.extend(layout.files);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    let archive = tucano_image_builder::layout::archive_of(&files).unwrap();
    (archive, digests.try_into().unwrap())
}

fn form(parts: &[(&'static str, Vec<u8>)]) -> Form {
    parts.iter().fold(Form::new(), |form, (name, content)| {
        let part = Part::bytes(content.clone());
        form.part(*name, part.file_name("hello.tar"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_an_archives_images_is_selected_by_name() {
    let ctl = Ctl::start(&config(1, "", "")).await;
    let (archive, [one, two]) = two_images();
    let config = |image: &str| body(image).to_string().into_bytes();
    for (name, digest) in [
        ("hello:one", &one),
        ("hello:two", &two),
        (two.as_str(), &two),
    ] {
        let parts = [("config", config(name)), ("image", archive.clone())];
        let deployed = ctl.send_form("", form(&parts)).await;
        assert_eq!(deployed.body["image"], *digest, "{name}");
    }
    for (name, code) in [
        ("hello:three", "no_such_image"),
        ("hello.tar", "several_images"),
    ] {
        let parts = [("config", config(name)), ("image", archive.clone())];
        let answer = ctl.send_form("", form(&parts)).await;
        assert_eq!(answer.code(), code, "{}", answer.body);
        let error = answer.error();
        assert!(
            error.contains("hello:one") && error.contains("hello:two"),
            "{error}"
        );
    }
    let single = image::archive("single");
    let parts = [("image", single.clone()), ("config", config("hello:one"))];
    ctl.send_form("", form(&parts))
        .await
        .refused(400, "image_name_too_late");
    let parts = [
        ("config", config("x.tar")),
        ("stored_image", one.clone().into_bytes()),
    ];
    let deployed = ctl.send_form("", form(&parts)).await.expect(200);
    assert_eq!(deployed["image"], one);
    let parts = [
        ("config", config("x.tar")),
        ("stored_image", one.into()),
        ("image", single),
    ];
    ctl.send_form("", form(&parts))
        .await
        .refused(400, "two_images");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_restores_revision_and_image() {
    let ctl = Ctl::start(&config(1, "revisions_kept = 2", "")).await;
    for content in ["one", "two"] {
        let answer = ctl
            .deploy(&image::config(1, ""), image::archive(content))
            .await;
        assert!(answer.status.is_success(), "{}", answer.body);
    }
    let digest = |content: &str| image::spec(content).build().unwrap().manifest_digest;
    let roll_back = async |query: &str| {
        let path = format!("/v1/services/hello/rollback{query}");
        ctl.send(ctl.http().post(ctl.url(&path))).await
    };
    let back = roll_back("").await.expect(200);
    assert_eq!(
        (&back["image"], &back["revision"]),
        (&json!(digest("one")), &json!(3))
    );
    let kept = ctl.get("/v1/services/hello/revisions").await.expect(200);
    let kept: Vec<_> = kept
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["revision"])
        .collect();
    assert_eq!(kept, [&json!(2), &json!(3)]);
    let forth = roll_back("?revision=2").await.expect(200);
    assert_eq!(forth["image"], digest("two"));
    let error = roll_back("?revision=1")
        .await
        .refused(404, "no_such_revision");
    assert!(error.contains("kept are 3, 4"), "{error}");
    let path = "/v1/services/nobody/rollback";
    ctl.send(ctl.http().post(ctl.url(path)))
        .await
        .refused(404, "not_found");
    ctl.get("/v1/services/nobody/revisions")
        .await
        .refused(404, "not_found");
}
