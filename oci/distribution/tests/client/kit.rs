//! A registry of a test's own on loopback, images in it, and stores to pull them to.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use oci_spec::image::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_oci_distribution::{
    Limits, Reference, Registry,
    client::{Bounds, Credentials, Error, Options, Remote},
    router,
};
use tucano_oci_image::{Platform, Store};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A server that ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
    _directory: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves these routes.
pub(crate) async fn serve(routes: Router) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Server {
        address,
        task,
        _directory: None,
    }
}

/// A registry with a store.
pub(crate) struct Origin {
    directory: TempDir,
    pub(crate) store: Store,
    pub(crate) router: Router,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let registry = Registry::open(directory.path(), store.clone(), Limits::default()).unwrap();
        Self {
            router: router(registry.with_pool("pool".parse().unwrap())),
            store,
            directory,
        }
    }

    /// Serves it on loopback.
    pub(crate) async fn serve(self) -> Server {
        let router = self.router.clone();
        self.serve_as(router).await
    }

    /// Serves these routes, for as long as which its store stays.
    pub(crate) async fn serve_as(self, routes: Router) -> Server {
        let mut server = serve(routes).await;
        server._directory = Some(self.directory);
        server
    }
}

pub(crate) fn store(directory: &TempDir) -> Store {
    Store::open(directory.path(), tucano_oci_image::Limits::default()).unwrap()
}

/// A remote at this address, spoken to by plain HTTP.
pub(crate) fn remote(address: SocketAddr, credentials: Credentials) -> Remote {
    remote_at(&format!("http://{address}"), credentials, None).unwrap()
}

pub(crate) fn remote_at(
    base: &str,
    credentials: Credentials,
    authorities: Option<Vec<u8>>,
) -> Result<Remote, Error> {
    provide_cryptography();
    Remote::new(Options {
        base: base.to_owned(),
        credentials,
        authorities,
        only_those: false,
        silence: Duration::from_secs(30),
        proxies: false,
    })
}

fn provide_cryptography() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
}

fn http() -> reqwest::Client {
    provide_cryptography();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn bounds() -> Bounds {
    Bounds {
        image_bytes: 1 << 30,
        document_bytes: 4 << 20,
        time: Duration::from_secs(300),
    }
}

/// An image with a layer of about so many bytes that cannot be compressed.
pub(crate) fn spec(bytes: usize) -> ImageSpec {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    let entries = [Entry::file("noise", noise)];
    ImageSpec::new("noise").layer(Layer::new(&entries, Compression::Gzip).unwrap())
}

/// An image's blobs beside its manifest, and that.
pub(crate) fn parts(layout: &Layout) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let mut blobs = Vec::new();
    let mut manifest = Vec::new();
    for (path, content) in &layout.files {
        let Some(hex) = path.strip_prefix("blobs/sha256/") else {
            continue;
        };
        let digest = format!("sha256:{hex}");
        match digest == layout.manifest_digest {
            true => manifest.clone_from(content),
            false => blobs.push((digest, content.clone())),
        }
    }
    (blobs, manifest)
}

/// Puts an image into a registry by plain requests.
pub(crate) async fn publish(base: &str, spec: &ImageSpec, name: &str, tag: &str) -> Layout {
    let layout = spec.build().unwrap();
    let (blobs, manifest) = parts(&layout);
    for (digest, content) in blobs {
        let url = format!("{base}/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = http().post(url).body(content).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    put(base, name, tag, MANIFEST, manifest).await;
    layout
}

pub(crate) async fn put(base: &str, name: &str, tag: &str, kind: &str, manifest: Vec<u8>) {
    let put = http().put(format!("{base}/v2/{name}/manifests/{tag}"));
    let put = put.header("content-type", kind).body(manifest);
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

/// An index of these images, each with its platform's architecture.
pub(crate) fn index(images: &[(&str, &Layout)]) -> Value {
    let manifests = images.iter().map(|(architecture, layout)| {
        let size = parts(layout).1.len();
        json!({
            "mediaType": MANIFEST, "digest": layout.manifest_digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    });
    let manifests: Vec<Value> = manifests.collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

pub(crate) async fn pull(remote: &Remote, to: &Store, reference: &str) -> Result<Digest, Error> {
    let reference: Reference = reference.parse().unwrap();
    remote
        .pull(to, &reference, &Platform::host(), &bounds())
        .await
}
