//! Pushing to and pulling from the registry that Debian packages, over TLS and with a password.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use oci_spec::image::Digest;
use tempfile::TempDir;
use tucano_oci_distribution::client::{Credentials, Remote, Secret};
use tucano_testkit::{needs, tool, wait_for};

use crate::{
    broken_connection::{BreakingProxy, Direction},
    kit::{MANIFEST, parts, pull, remote_at, spec, store},
    pushing::Memory,
};

/// Made by `htpasswd -B` for the user `tucano` and the password below.
const HTPASSWD: &str = "tucano:$2y$05$7zu5/93TrSGWRfSnFYtvs.blujrLnlq.PxVz6v5QYgLlsSOeWz0XO\n";
const PASSWORD: &str = "0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running registry; killed when dropped.
struct DebianRegistry {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl DebianRegistry {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        certify(directory.path());
        let at = |name: &str| directory.path().join(name);
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        fs::write(at("config.yml"), config(directory.path())).unwrap();
        let log = File::create(at("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", at("config.yml").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self {
            directory,
            child,
            port: 0,
        };
        // It takes a free port, and says which.
        registry.port = wait_for("docker-registry", PATIENCE, || {
            let log = fs::read_to_string(registry.directory.path().join("log")).unwrap();
            let (_, after) = log.split_once("listening on 127.0.0.1:")?;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        registry
    }

    fn authority(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("cert.pem")).unwrap()
    }

    fn remote(&self, port: u16, password: &str) -> Remote {
        let credentials = Credentials::User {
            name: "tucano".to_owned(),
            password: Secret::new(password),
        };
        let base = format!("https://127.0.0.1:{port}");
        remote_at(&base, credentials, Some(self.authority())).unwrap()
    }
}

fn config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n\
         http: {{addr: '127.0.0.1:0', tls: {{certificate: {directory}/cert.pem, key: {directory}/key.pem}}}}\n\
         auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n"
    )
}

/// A certificate for loopback, signed by itself.
fn certify(directory: &Path) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=registry of a test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

async fn push(remote: &Remote, name: &str, bytes: usize) -> Digest {
    let name = name.parse().unwrap();
    let layout = spec(bytes).build().unwrap();
    let (blobs, manifest) = parts(&layout);
    for (digest, content) in blobs {
        let blob = Memory::new(&digest, content);
        remote.push_blob(&name, &blob, &|_| {}).await.unwrap();
    }
    let digest: Digest = layout.manifest_digest.parse().unwrap();
    let put = remote.push_manifest(&name, &digest, MANIFEST, manifest.into());
    put.await.unwrap();
    digest
}

#[tokio::test]
async fn debians_registry_works_over_tls_and_broken_connections() {
    if !needs(&[tool("docker-registry"), tool("openssl")]) {
        return;
    }
    let registry = DebianRegistry::start();
    let digest = push(
        &registry.remote(registry.port, PASSWORD),
        "team/noise",
        2 << 20,
    )
    .await;
    let address = ([127, 0, 0, 1], registry.port).into();
    let proxy = BreakingProxy::start(address, 4, 400 << 10, Direction::Down).await;
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let remote = registry.remote(proxy.address.port(), PASSWORD);
    let pulled = pull(&remote, &store, &format!("team/noise@{digest}")).await;
    assert_eq!(pulled.unwrap(), digest);
    store.verify(&store.image(&digest).unwrap()).unwrap();
    assert_eq!(proxy.cuts_left(), 0);
    assert!(proxy.down() < 4 << 20, "{} bytes came", proxy.down());
}

#[tokio::test]
async fn debians_registry_refuses_a_wrong_password_and_an_unknown_authority_is_refused() {
    if !needs(&[tool("docker-registry"), tool("openssl")]) {
        return;
    }
    let registry = DebianRegistry::start();
    let place = tempfile::tempdir().unwrap();
    let store = store(&place);
    let wrong = registry.remote(registry.port, "wrong-wrong");
    let error = pull(&wrong, &store, "a:1").await.unwrap_err().to_string();
    assert!(
        error.contains("does not accept the credentials") && !error.contains("wrong-wrong"),
        "{error}"
    );
    let base = format!("https://127.0.0.1:{}", registry.port);
    let unknown = remote_at(&base, Credentials::Anonymous, None).unwrap();
    let error = pull(&unknown, &store, "a:1").await.unwrap_err().to_string();
    assert!(error.contains("cannot speak TLS"), "{error}");
    let right = registry.remote(registry.port, PASSWORD);
    let error = pull(&right, &store, "a:1").await.unwrap_err().to_string();
    assert!(error.contains("has no image a:1"), "{error}");
}
