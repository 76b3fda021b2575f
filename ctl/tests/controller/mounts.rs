//! Images that are mounted into the containers of a service.

use reqwest::Method;
use serde_json::{Value, json};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};

use crate::{
    agent::Agent,
    ctl::{Answer, Ctl, config},
    image,
    pulling::{PASSWORD, listing, other, push},
    tls::client_as,
};

/// An image of a file, without a program.
fn files(content: &str) -> ImageSpec {
    let file = Entry::file("weights", content).owner(7, 8);
    ImageSpec::new("models").layer(Layer::new(&[file], Compression::Gzip).unwrap())
}

/// A configuration with this image on `/models`.
fn mounting(image: &str) -> String {
    let mount = format!("[[mount]]\npath = \"/models\"\nimage = \"{image}\"");
    image::config(1, &mount)
}

async fn deploy(ctl: &Ctl, mounted: &str) -> Answer {
    ctl.deploy(&mounting(mounted), image::archive("hello"))
        .await
}

async fn patch(ctl: &Ctl, patch: Value) -> Answer {
    ctl.request(Method::PATCH, "/v1/services/hello", &patch)
        .await
}

/// The digest in the current revision.
async fn digest(ctl: &Ctl) -> Value {
    let service = ctl.get("/v1/configured_services/hello").await.expect(200);
    service["config"]["mount"][0]["digest"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_resolves_the_image_to_a_digest_of_the_revision() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    let one = push(&ctl, &files("one"), "models/llm", "1").await;
    let first = deploy(&ctl, "models/llm:1").await.expect(201);
    assert_eq!(
        (&first["revision"], &first["warnings"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(digest(&ctl).await, one.manifest_digest);
    let desired = ctl
        .eventually("the process", async |_| {
            agent.desired_processes().into_iter().next()
        })
        .await;
    let mount = &desired.config.mount[0];
    assert_eq!(mount.image.as_deref(), Some("models/llm:1"));
    let sent = mount.digest.as_ref().unwrap().to_string();
    assert_eq!(sent, one.manifest_digest);
    let again = deploy(&ctl, "models/llm:1").await.expect(200);
    assert_eq!(
        (&again["changed"], &again["revision"]),
        (&json!(false), &json!(1))
    );

    // The tag moves: nothing changes before the next deploy or change of the mounts.
    let two = push(&ctl, &files("two"), "models/llm", "1").await;
    patch(&ctl, json!({"hosts": ["www.example"]}))
        .await
        .expect(200);
    assert_eq!(digest(&ctl).await, one.manifest_digest);
    let third = deploy(&ctl, "models/llm:1").await.expect(200);
    assert_eq!(
        (&third["changed"], &third["revision"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(digest(&ctl).await, two.manifest_digest);

    // A rollback has the files of its revision.
    let back = ctl
        .request(
            Method::POST,
            "/v1/services/hello/rollback",
            &json!({"revision": 1}),
        )
        .await;
    back.expect(200);
    assert_eq!(digest(&ctl).await, one.manifest_digest);
    let mounts =
        json!([{"path": "/models", "image": "models/llm:1", "digest": one.manifest_digest}]);
    patch(&ctl, json!({"mount": mounts})).await.expect(200);
    assert_eq!(digest(&ctl).await, two.manifest_digest);
    let by_digest = json!([{"path": "/models", "image": one.manifest_digest}]);
    patch(&ctl, json!({"mount": by_digest})).await.expect(200);
    assert_eq!(digest(&ctl).await, one.manifest_digest);
    patch(&ctl, json!({"mount": null})).await.expect(200);
    assert_eq!(digest(&ctl).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mounted_is_refused_by_its_key() {
    let other = other().await;
    let ctl = Ctl::start(&config(1, "", &listing(&other, ""))).await;
    push(&ctl, &files("s390x").architecture("s390x"), "foreign", "1").await;
    push(&ctl, &ImageSpec::new("empty"), "empty", "1").await;
    let artifact = files("artifact").edit_manifest(|manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    });
    push(&ctl, &artifact, "artifact", "1").await;
    let unknown = format!("sha256:{}", "0".repeat(64));
    let of_other = format!("{}/models:1", other.address());
    for (image, status, code, part) in [
        (
            "models:1",
            404,
            "no_such_image",
            "the registry has no models:1: it has ",
        ),
        (
            "./models.tar",
            400,
            "no_image",
            "an archive that is beside the configuration",
        ),
        ("models", 400, "no_image", "name:tag"),
        (&unknown, 422, "not_found", "the image was refused"),
        (
            "elsewhere.example/a:1",
            422,
            "unknown_registry",
            "the registry elsewhere.example is not listed",
        ),
        (
            &of_other,
            422,
            "registry_refuses",
            "the image cannot be pulled",
        ),
        ("foreign:1", 422, "wrong_architecture", "s390x"),
        ("empty:1", 400, "malformed", "it has no layers"),
        ("artifact:1", 422, "unsupported", "FROM scratch"),
    ] {
        let error = deploy(&ctl, image).await.refused(status, code);
        assert!(
            error.starts_with("hello.toml: mount[0].image: "),
            "{image}: {error}"
        );
        assert!(
            error.contains(part) && !error.contains("image: image:"),
            "{image}: {error}"
        );
    }
    ctl.get("/v1/services/hello")
        .await
        .refused(404, "not_found");
    ctl.deploy(&image::config(1, ""), image::archive("hello"))
        .await
        .expect(201);
    let mounts = json!([{"path": "/models", "image": "models:1"}]);
    let error = patch(&ctl, json!({"mount": mounts})).await;
    let error = error.refused(404, "no_such_image");
    assert!(error.starts_with("patch: mount[0].image: "), "{error}");
    assert_eq!(digest(&ctl).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_registry_is_pulled_for_a_mount() {
    let other = other().await;
    let spec = files("far").layer(
        Layer::new(
            &[Entry::file("high", "").owner(70_000, 0)],
            Compression::Gzip,
        )
        .unwrap(),
    );
    let far = push(&other, &spec, "team/models", "1").await;
    let login = format!("user = \"me\"\npassword = \"{PASSWORD}\"");
    let ctl = Ctl::start(&config(1, "", &listing(&other, &login))).await;
    let image = format!("{}/team/models:1", other.address());
    let deployed = deploy(&ctl, &image).await.expect(201);
    let warning = deployed["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("/models: 1 entries of the image"),
        "{warning}"
    );
    assert_eq!(digest(&ctl).await, far.manifest_digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_image_stays_while_a_service_has_it_and_only_its_nodes_fetch_it() {
    let text = |tables: &str| config(2, "drain = \"10ms\"", tables);
    let mut ctl = Ctl::start(&text("")).await;
    let agent = Agent::start(&ctl, 1).await;
    let models = push(&ctl, &files("one"), "models", "1").await;
    deploy(&ctl, "models:1").await.expect(201);
    ctl.eventually("the process", async |_| {
        agent.desired_processes().into_iter().next()
    })
    .await;
    let unused = push(&ctl, &files("unused"), "unused", "1").await;
    // From now on nothing stays for its age.
    ctl.kill_9().await;
    ctl.write_config(&text("[limits]\nregistry_untagged_kept = \"100ms\""));
    ctl.start_again().await;
    for (name, image) in [("models", &models), ("unused", &unused)] {
        let path = format!("/v2/{name}/manifests/{}", image.manifest_digest);
        ctl.delete(&path).await.expect(202);
    }
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    ctl.eventually("the unused image's end", async |ctl| {
        let gone = !ctl.blobs().contains(&hex(&unused.manifest_digest));
        gone.then_some(())
    })
    .await;
    let blobs: Vec<String> = models
        .files
        .keys()
        .filter_map(|path| {
            let name = path.strip_prefix("blobs/sha256/")?;
            Some(name.to_owned())
        })
        .collect();
    assert_eq!(blobs.len(), 3);
    for blob in &blobs {
        for (node, expected) in [("node:w1", 200), ("node:w2", 403)] {
            let path = format!("/v2/tucano/images/blobs/sha256:{blob}");
            let url = ctl.url(&path).replace("http:", "https:");
            let answer = client_as(&ctl, node).get(url).send().await.unwrap();
            assert_eq!(answer.status(), expected, "{node} {blob}");
        }
    }
    ctl.delete("/v1/services/hello?wait=true").await.expect(200);
    ctl.eventually("the image's end", async |ctl| {
        ctl.blobs().is_empty().then_some(())
    })
    .await;
}
