//! Blobs to a registry.

use std::{io, sync::Mutex};

use bytes::Bytes;
use oci_spec::image::Digest;
use tucano_oci_distribution::client::{Blob, Credentials};

use crate::{
    broken_connection::{BreakingProxy, Direction},
    kit::{MANIFEST, Origin, parts, remote, serve, spec},
};

pub(crate) struct Memory {
    digest: Digest,
    content: Bytes,
}

impl Memory {
    pub(crate) fn new(digest: &str, content: Vec<u8>) -> Self {
        Self {
            digest: digest.parse().unwrap(),
            content: content.into(),
        }
    }
}

impl Blob for Memory {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let from = usize::try_from(from).unwrap();
        Ok(self
            .content
            .slice(from..from + usize::try_from(length).unwrap()))
    }
}

#[tokio::test]
async fn a_broken_upload_is_resumed() {
    const BYTES: usize = 20 << 20;
    let origin = Origin::new();
    let server = serve(origin.router.clone()).await;
    let proxy = BreakingProxy::start(server.address, 5, 3 << 20, Direction::Up).await;
    let remote = remote(proxy.address, Credentials::Anonymous);
    let name = "pool".parse().unwrap();
    let layout = spec(BYTES).build().unwrap();
    let (blobs, manifest) = parts(&layout);
    let told = Mutex::new(Vec::new());
    for (digest, content) in blobs {
        let blob = Memory::new(&digest, content);
        assert!(!remote.has_blob(&name, &blob.digest).await.unwrap());
        let tell = |arrived| told.lock().unwrap().push(arrived);
        remote.push_blob(&name, &blob, &tell).await.unwrap();
        assert!(remote.has_blob(&name, &blob.digest).await.unwrap());
        assert_eq!(told.lock().unwrap().last(), Some(&blob.bytes()));
    }
    assert_eq!(proxy.cuts_left(), 0);
    let sent = usize::try_from(proxy.up()).unwrap();
    assert!(sent < BYTES * 2, "{sent} bytes for {BYTES}");
    let digest: Digest = layout.manifest_digest.parse().unwrap();
    remote
        .push_manifest(&name, &digest, MANIFEST, manifest.into())
        .await
        .unwrap();
    let image = origin.store.image(&digest).unwrap();
    origin.store.verify(&image).unwrap();
}

#[tokio::test]
async fn a_blob_with_another_digest_is_refused() {
    let origin = Origin::new();
    let server = serve(origin.router.clone()).await;
    let remote = remote(server.address, Credentials::Anonymous);
    let name = "a".parse().unwrap();
    let blob = Memory::new(&format!("sha256:{}", "0".repeat(64)), b"x".to_vec());
    let error = remote.push_blob(&name, &blob, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert!(!remote.has_blob(&name, &blob.digest).await.unwrap());
    let manifest = Bytes::from_static(b"{}");
    let error = remote
        .push_manifest(&name, &blob.digest, MANIFEST, manifest)
        .await;
    assert!(error.unwrap_err().to_string().contains("status 400"));
}

#[tokio::test]
async fn the_pool_has_the_blobs_of_every_repository() {
    let origin = Origin::new();
    let server = serve(origin.router.clone()).await;
    let remote = remote(server.address, Credentials::Anonymous);
    let (pool, other) = ("pool".parse().unwrap(), "other".parse().unwrap());
    let content = b"x".to_vec();
    let digest = tucano_oci_image::digest_of(&content);
    let blob = Memory::new(digest.as_ref(), content);
    remote.push_blob(&other, &blob, &|_| {}).await.unwrap();
    assert!(remote.has_blob(&pool, &digest).await.unwrap());
    let third = "third".parse().unwrap();
    assert!(!remote.has_blob(&third, &digest).await.unwrap());
}
