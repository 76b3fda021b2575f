//! The registry with other tools as clients, and deploys of pushed images.

use std::{path::Path, process::Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, layout::blob_path};
use tucano_oci_image::{Digest, digest_like};
use tucano_testkit::{ROOT, needs, tool};

use crate::{
    agent::Agent,
    ctl::{Ctl, config},
    image,
};

const TOKEN: &str = "0123456789abcdef0123";

/// A layout directory with a small image.
fn layout(spec: &ImageSpec) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    spec.build()
        .unwrap()
        .write_directory(directory.path())
        .unwrap();
    directory
}

/// Runs a tool; its stdout, or its stderr.
async fn run(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn at(ctl: &Ctl, name: &str) -> String {
    format!("docker://{}/{name}", ctl.address())
}

fn from(layout: &Path) -> String {
    format!("oci:{}:latest", layout.display())
}

async fn push(ctl: &Ctl, spec: &ImageSpec, name: &str) {
    let layout = layout(spec);
    let arguments = [
        "copy",
        "--dest-tls-verify=false",
        &from(layout.path()),
        &at(ctl, name),
    ];
    run("skopeo", &arguments).await.unwrap();
}

async fn deploy(ctl: &Ctl, image: &str) -> crate::ctl::Answer {
    let body = json!({"name": "hello", "concurrency": 1, "port": 8080, "image": image});
    ctl.request(Method::POST, "/v1/services", &body).await
}

#[tokio::test]
async fn skopeo_pushes_inspects_and_pulls() {
    if !needs(&[tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    push(&ctl, &image::spec("hello"), "team/hello:1").await;
    let shown = run(
        "skopeo",
        &["inspect", "--tls-verify=false", &at(&ctl, "team/hello:1")],
    )
    .await;
    let shown: Value = serde_json::from_str(&shown.unwrap()).unwrap();
    assert_eq!(shown["RepoTags"], json!(["1"]));
    let back = tempfile::tempdir().unwrap();
    let target = from(back.path());
    let arguments = [
        "copy",
        "--src-tls-verify=false",
        &at(&ctl, "team/hello:1"),
        &target,
    ];
    run("skopeo", &arguments).await.unwrap();
    let built = image::spec("hello").build().unwrap();
    assert_eq!(shown["Digest"], built.manifest_digest);
    let blobs = std::fs::read_dir(back.path().join("blobs/sha256"))
        .unwrap()
        .count();
    assert_eq!(blobs, 3);
    // A second repository gets the blobs by mounting them.
    push(&ctl, &image::spec("hello"), "other:2").await;
    let catalog = ctl.get("/v2/_catalog").await.expect(200);
    assert_eq!(catalog["repositories"], json!(["other", "team/hello"]));
    let arguments = ["delete", "--tls-verify=false", &at(&ctl, "other:2")];
    run("skopeo", &arguments).await.unwrap();
    assert_eq!(ctl.get("/v2/other/manifests/2").await.status, 404);
}

#[tokio::test]
async fn an_image_is_deployed_by_its_sha512_digest() {
    if !needs(&[tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    push(&ctl, &image::spec("hello"), "hello:1").await;
    let built = image::spec("hello").build().unwrap();
    let manifest = &built.files[&blob_path(&built.manifest_digest)];
    let none: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let digest = digest_like(&none, manifest);
    let url = ctl.url(&format!("/v2/hello/manifests/{digest}"));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let put = ctl.http().put(url).header("content-type", kind);
    ctl.send(put.body(manifest.clone())).await.expect(201);
    let wanted = format!("hello@{digest}");
    let body = json!({"name": "hello", "concurrency": 1, "port": 8080, "image": wanted});
    let deployed = ctl
        .request(Method::POST, "/v1/services?wait=true", &body)
        .await;
    assert_eq!(deployed.expect(201)["image"], built.manifest_digest);
    assert_eq!(agent.processes().len(), 1);
    let unknown = format!("hello@{none}");
    deploy(&ctl, &unknown).await.refused(404, "no_such_image");
}

#[tokio::test]
async fn buildah_pushes_docker_media_types() {
    if !needs(&[tool("buildah"), tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    let storage = tempfile::tempdir().unwrap();
    let part = |name: &str| storage.path().join(name).display().to_string();
    let (root, runroot) = (part("root"), part("run"));
    let options = [
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--storage-driver",
        "vfs",
    ];
    push(&ctl, &image::spec("hello"), "hello:oci").await;
    let source = at(&ctl, "hello:oci");
    let pulled = [&options[..], &["pull", "--tls-verify=false", &source]].concat();
    let id = run("buildah", &pulled).await.unwrap();
    let target = at(&ctl, "hello:docker");
    let arguments = [
        "push",
        "--tls-verify=false",
        "--format",
        "v2s2",
        id.trim(),
        &target,
    ];
    run("buildah", &[&options[..], &arguments].concat())
        .await
        .unwrap();
    let digest = deploy(&ctl, "hello:docker").await.expect(201)["image"].clone();
    assert!(digest.as_str().unwrap().starts_with("sha256:"));
}

#[tokio::test]
async fn podman_pulls_and_pushes() {
    if !needs(&[tool("podman"), tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    let storage = tempfile::tempdir().unwrap();
    let part = |name: &str| storage.path().join(name).display().to_string();
    let (root, runroot, temporary) = (part("root"), part("run"), part("tmp"));
    let options = [
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--tmpdir",
        &temporary,
        "--storage-driver",
        "vfs",
    ];
    let podman = async |arguments: &[&str]| {
        run("podman", &[&options[..], arguments].concat())
            .await
            .unwrap()
    };
    push(&ctl, &image::spec("hello"), "hello:skopeo").await;
    let source = format!("{}/hello:skopeo", ctl.address());
    let id = podman(&["pull", "--quiet", "--tls-verify=false", &source]).await;
    for (format, tag) in [("oci", "podman"), ("v2s2", "docker")] {
        let target = at(&ctl, &format!("team/hello:{tag}"));
        podman(&[
            "push",
            "--tls-verify=false",
            "--format",
            format,
            id.trim(),
            &target,
        ])
        .await;
        let digest = deploy(&ctl, &format!("team/hello:{tag}")).await;
        assert!(digest.status.is_success(), "{}", digest.body);
    }
    let tags = ctl.get("/v2/team/hello/tags/list").await.expect(200);
    assert_eq!(tags["tags"], json!(["docker", "podman"]));
}

/// A Docker daemon with its own directories and no network; stopped when dropped.
struct Dockerd {
    directory: TempDir,
    child: std::process::Child,
}

impl Dockerd {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let part = |name: &str| directory.path().join(name).display().to_string();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = std::process::Command::new("dockerd")
            .args(["--data-root", &part("data"), "--exec-root", &part("exec")])
            .args([
                "--pidfile",
                &part("pid"),
                "--host",
                &format!("unix://{}", part("socket")),
            ])
            .args([
                "--storage-driver",
                "vfs",
                "--bridge",
                "none",
                "--iptables=false",
            ])
            .args(["--ip6tables=false", "--ip-masq=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let dockerd = Self { directory, child };
        let deadline = tokio::time::Instant::now() + crate::ctl::TIMEOUT;
        while dockerd.docker(&["version"]).await.is_err() {
            let log = || std::fs::read_to_string(dockerd.directory.path().join("log"));
            assert!(tokio::time::Instant::now() < deadline, "{:?}", log());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        dockerd
    }

    async fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        let part = |name: &str| self.directory.path().join(name).display().to_string();
        let host = format!("unix://{}", part("socket"));
        let config = part("config");
        let options = ["--host", &host, "--config", &config];
        run("docker", &[&options[..], arguments].concat()).await
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // On SIGTERM it stops its containerd, too.
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn docker_pulls_pushes_and_logs_in() {
    if !needs(&[ROOT, tool("dockerd"), tool("docker"), tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    push(&ctl, &image::spec("hello"), "hello:skopeo").await;
    let guarded = Ctl::start(&config(1, &format!("token = \"{TOKEN}\""), "")).await;
    let dockerd = Dockerd::start().await;
    let (from, to) = (
        format!("{}/hello:skopeo", ctl.address()),
        format!("{}/team/hello:docker", guarded.address()),
    );
    for arguments in [["pull", "--quiet", &from], ["tag", &from, &to]] {
        dockerd.docker(&arguments).await.unwrap();
    }
    let refused = dockerd.docker(&["push", "--quiet", &to]).await;
    assert!(refused.is_err(), "{refused:?}");
    let address = guarded.address().to_string();
    let login = ["login", "--username", "me", "--password", TOKEN, &address];
    dockerd.docker(&login).await.unwrap();
    dockerd.docker(&["push", "--quiet", &to]).await.unwrap();
    let url = guarded.url("/v2/team/hello/tags/list");
    let listed = guarded
        .send(guarded.http().get(url).bearer_auth(TOKEN))
        .await;
    assert_eq!(listed.expect(200)["tags"], json!(["docker"]));
}

#[tokio::test]
async fn a_pushed_image_is_deployed_by_name_and_survives_kill_9() {
    if !needs(&[tool("skopeo")]) {
        return;
    }
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let agent = Agent::start(&ctl, 1).await;
    push(&ctl, &image::spec("one"), "hello:1").await;
    push(&ctl, &image::spec("two"), "hello:2").await;
    let digest = |content: &str| image::spec(content).build().unwrap().manifest_digest;
    let deployed = deploy(&ctl, "hello:1").await.expect(201);
    assert_eq!(deployed["image"], digest("one"));
    ctl.eventually("the process", async |_| {
        (agent.processes().len() == 1).then_some(())
    })
    .await;

    ctl.kill_9().await;
    ctl.start_again().await;
    let patch = |image: String| (Method::PATCH, "/v1/services/hello", json!({"image": image}));
    let (method, path, body) = patch("hello:2".to_owned());
    assert_eq!(
        ctl.request(method, path, &body).await.expect(200)["image"],
        digest("two")
    );
    let (method, path, body) = patch(format!("hello@{}", digest("one")));
    assert_eq!(
        ctl.request(method, path, &body).await.expect(200)["image"],
        digest("one")
    );

    let error = deploy(&ctl, "hello:3").await.refused(404, "no_such_image");
    assert!(error.contains("hello:1, hello:2"), "{error}");
    let (method, path, body) = patch("nobody:1".to_owned());
    ctl.request(method, path, &body)
        .await
        .refused(404, "no_such_image");
}

#[tokio::test]
async fn an_upload_continues_after_kill_9() {
    let mut ctl = Ctl::start(&config(1, "", "")).await;
    let begun = ctl
        .http()
        .post(ctl.url("/v2/a/blobs/uploads/"))
        .send()
        .await;
    let location = begun.unwrap().headers()["location"]
        .to_str()
        .unwrap()
        .to_owned();
    let piece = ctl.http().patch(ctl.url(&location)).body("half");
    assert_eq!(ctl.send(piece).await.status, 202);
    ctl.kill_9().await;
    ctl.start_again().await;
    let status = ctl.http().get(ctl.url(&location)).send().await.unwrap();
    assert_eq!(
        (status.status().as_u16(), &status.headers()["range"]),
        (204, &"0-3".parse().unwrap())
    );
    let digest = tucano_image_builder::layout::sha256(b"half and half");
    let rest = ctl
        .http()
        .put(ctl.url(&format!("{location}?digest={digest}")));
    assert_eq!(ctl.send(rest.body(" and half")).await.status, 201);
    assert_eq!(ctl.blobs(), [digest.trim_start_matches("sha256:")]);
}

#[tokio::test]
async fn a_pushed_image_is_verified_before_a_deploy_is_acknowledged() {
    if !needs(&[tool("skopeo")]) {
        return;
    }
    let ctl = Ctl::start(&config(1, "", "")).await;
    let layer = |name: &str| Layer::new(&[Entry::file(name, "x")], Compression::Gzip).unwrap();
    let escaping = ImageSpec::new("x").layer(layer("../x"));
    let foreign = image::spec("x").architecture("s390x");
    for (spec, name, status, code) in [
        (escaping, "bad:1", 400, "layer_path_escapes"),
        (foreign, "bad:2", 422, "wrong_architecture"),
    ] {
        push(&ctl, &spec, name).await;
        deploy(&ctl, name).await.refused(status, code);
        let digest = spec.build().unwrap().manifest_digest;
        deploy(&ctl, &digest).await.refused(status, code);
    }
}

#[tokio::test]
async fn an_index_resolves_to_the_workers_platform() {
    let ctl = Ctl::start(&config(2, "", "")).await;
    let mut manifests = Vec::new();
    let own = image::spec("x");
    for spec in [image::spec("x").architecture("s390x"), image::spec("x")] {
        let layout = spec.build().unwrap();
        let manifest =
            layout.files[&format!("blobs/{}", layout.manifest_digest.replace(':', "/"))].clone();
        for (path, content) in &layout.files {
            let Some(hex) = path.strip_prefix("blobs/sha256/") else {
                continue;
            };
            let url = ctl.url(&format!("/v2/multi/blobs/uploads/?digest=sha256:{hex}"));
            assert_eq!(
                ctl.send(ctl.http().post(url).body(content.clone()))
                    .await
                    .status,
                201
            );
        }
        let url = ctl.url(&format!("/v2/multi/manifests/{}", layout.manifest_digest));
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let put = ctl
            .http()
            .put(url)
            .header("content-type", kind)
            .body(manifest.clone());
        assert_eq!(ctl.send(put).await.status, 201);
        let platform = json!({"os": spec.os, "architecture": spec.architecture});
        let digest = layout.manifest_digest;
        manifests.push(json!({"mediaType": kind, "digest": digest, "size": manifest.len(), "platform": platform}));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    let put = ctl
        .http()
        .put(ctl.url("/v2/multi/manifests/1"))
        .header("content-type", kind);
    assert_eq!(ctl.send(put.body(index.to_string())).await.status, 201);
    let deployed = deploy(&ctl, "multi:1").await.expect(201);
    assert_eq!(deployed["image"], own.build().unwrap().manifest_digest);
    each_worker_gets_its_own(&ctl, &own, &image::spec("x").architecture("s390x")).await;
}

async fn each_worker_gets_its_own(ctl: &Ctl, own: &ImageSpec, other: &ImageSpec) {
    let agents = [Agent::start(ctl, 1).await, Agent::start(ctl, 2).await];
    agents[1].claim_architecture("s390x");
    let has_reported = async || {
        let nodes = ctl.get("/v1/nodes").await.expect(200);
        let nodes = nodes.as_array().unwrap().clone();
        let claims = |it: &Value| it["alive"]["architecture"] == json!("s390x");
        nodes.iter().any(claims)
    };
    while !has_reported().await {
        tokio::task::yield_now().await;
    }
    let body = json!({"name": "hello", "concurrency": 4, "port": 8080, "image": "multi:1"});
    let path = "/v1/services?wait=true";
    ctl.request(Method::POST, path, &body).await.expect(200);
    for (agent, spec) in agents.iter().zip([own, other]) {
        let digest = spec.build().unwrap().manifest_digest;
        let processes = agent.desired_processes();
        assert_eq!(processes.len(), 2);
        for process in processes {
            assert_eq!(process.image.to_string(), digest);
        }
    }
    push(ctl, own, "single:1").await;
    let body = json!({"name": "single", "concurrency": 2, "port": 8080, "image": "single:1"});
    let deployed = ctl.request(Method::POST, path, &body).await.expect(201);
    assert_eq!(
        deployed["warnings"],
        json!(["the image is not for s390x: workers such as w2 get no process of it"])
    );
    let single = agents[1].desired_processes();
    assert!(single.iter().all(|it| it.config.name.as_str() == "hello"));
}

#[tokio::test]
async fn clients_log_in_with_the_token_as_password() {
    let ctl = Ctl::start(&config(1, &format!("token = \"{TOKEN}\""), "")).await;
    let refused = ctl.http().get(ctl.url("/v2/")).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenge = refused.headers()["www-authenticate"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "UNAUTHORIZED");
    for (password, status) in [(TOKEN, 200), ("wrong", 401)] {
        let request = ctl
            .http()
            .get(ctl.url("/v2/"))
            .basic_auth("me", Some(password));
        assert_eq!(ctl.send(request).await.status, status);
    }
    if !needs(&[tool("skopeo")]) {
        return;
    }
    let layout = layout(&image::spec("x"));
    let arguments = ["copy", "--dest-tls-verify=false", "--dest-creds"];
    let ends = [from(layout.path()), at(&ctl, "x:1")];
    let push = async |creds: &str| {
        run(
            "skopeo",
            &[&arguments[..], &[creds, &ends[0], &ends[1]]].concat(),
        )
        .await
    };
    push(&format!("me:{TOKEN}")).await.unwrap();
    assert!(push("me:wrong-wrong-wrong").await.is_err());
}

#[tokio::test]
async fn untagged_content_is_removed_after_its_retention() {
    let limits = "[limits]\nregistry_untagged_kept = \"100ms\"";
    let mut ctl = Ctl::start(&config(1, "", limits)).await;
    let digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let url = ctl.url(&format!("/v2/a/blobs/uploads/?digest={digest}"));
    assert_eq!(ctl.send(ctl.http().post(url).body("x")).await.status, 201);
    ctl.eventually("the blob's end", async |ctl| {
        ctl.blobs().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserved_repository_takes_no_tags_and_removes_no_manifests() {
    let ctl = Ctl::start(&config(0, "", "")).await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (method, reference) in [
        (Method::PUT, "latest"),
        (Method::DELETE, "latest"),
        (Method::DELETE, digest.as_str()),
    ] {
        let url = ctl.url(&format!("/v2/tucano/images/manifests/{reference}"));
        let answer = ctl.send(ctl.http().request(method.clone(), url)).await;
        assert_eq!(answer.status, 403, "{method} {reference}");
    }
}
