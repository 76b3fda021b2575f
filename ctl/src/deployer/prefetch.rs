//! Announces each complete blob of an image to the agents during its upload, so that they fetch and unpack layers early.
//! Announcements are hints: an agent that misses one fetches the blob when it is needed.

use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::Digest as OciDigest;
use tokio::{runtime::Handle, sync::mpsc};
use tucano_api::{
    agent::{Prefetch, PrefetchedBlob},
    ids::Digest,
};
use tucano_oci_image::{BlobListener, Store};

use super::images::{Images, from_oci};
use crate::{
    agent_mgr::{AgentAddress, AgentManager},
    config_mgr::ConfigManager,
};

/// Smallest blob that is announced.
const MIN_BYTES: u64 = 64 << 10;
/// Blobs that wait to be announced; beyond, they are skipped.
const QUEUE: usize = 64;
/// Largest number of withdrawn blobs in one request.
const MAX_WITHDRAWN: usize = 256;

/// Announces blobs to agents.
#[derive(Debug, Clone)]
pub struct Prefetcher {
    announcer: Announcer,
    /// Blobs that were pushed to the registry, and those of refused images.
    pushed: mpsc::Sender<Hint>,
}

/// What agents are told, in this order.
#[derive(Debug)]
enum Hint {
    Announced(PrefetchedBlob),
    Withdrawn(Vec<Digest>),
}

#[derive(Debug, Clone)]
struct Announcer {
    config: Arc<ConfigManager>,
    agents: Arc<AgentManager>,
    images: Arc<Images>,
}

impl Prefetcher {
    /// Announces to `agents`, up to `limits.prefetching_agents` of them. Must be called within a runtime.
    pub fn new(config: Arc<ConfigManager>, agents: Arc<AgentManager>, images: Arc<Images>) -> Self {
        let (pushed, blobs) = mpsc::channel(QUEUE);
        let announcer = Announcer {
            config,
            agents,
            images,
        };
        tokio::spawn(announcer.clone().announce(blobs));
        Self { announcer, pushed }
    }

    /// Announces a blob that was pushed for a deploy.
    pub(super) fn pushed(&self, digest: Digest, bytes: u64) {
        enqueue(&self.pushed, digest, bytes);
    }

    /// Withdraws the layers of a stored image that cannot run. Agents keep what other images use.
    pub(super) fn refused(&self, layers: Vec<Digest>) {
        if self.pushed.try_send(Hint::Withdrawn(layers)).is_err() {
            tracing::debug!("the layers of a refused image are not withdrawn: the queue is full");
        }
    }

    /// A callback for an import, called for each blob; blobs that `store` already has are not announced. The import's
    /// announcements are withdrawn when the other value is dropped, unless the image is accepted.
    pub(super) fn observer(&self, store: Store) -> (BlobListener, Announced) {
        let (sender, blobs) = mpsc::channel(QUEUE);
        tokio::spawn(self.announcer.clone().announce(blobs));
        let announced = Announced {
            announcer: self.announcer.clone(),
            blobs: Arc::default(),
            queue: sender.clone(),
        };
        let noted = Arc::clone(&announced.blobs);
        let listener = Box::new(move |digest: &OciDigest, bytes| {
            if store.contains(digest) {
                return;
            }
            if let Ok(digest) = from_oci(digest) {
                noted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(digest.clone());
                enqueue(&sender, digest, bytes);
            }
        });
        (listener, announced)
    }
}

/// The blobs that were announced for one import.
#[derive(Debug)]
pub(super) struct Announced {
    announcer: Announcer,
    blobs: Arc<Mutex<Vec<Digest>>>,
    queue: mpsc::Sender<Hint>,
}

impl Announced {
    /// Keeps the announcements: the image is accepted.
    pub(super) fn accept(self) {
        self.take();
    }

    fn take(&self) -> Vec<Digest> {
        std::mem::take(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let withdrawn = self.take();
        if withdrawn.is_empty() {
            return;
        }
        // Behind the announcements that still wait.
        let full = match self.queue.try_send(Hint::Withdrawn(withdrawn)) {
            Err(mpsc::error::TrySendError::Full(Hint::Withdrawn(withdrawn))) => withdrawn,
            _ => return,
        };
        if let Ok(runtime) = Handle::try_current() {
            let announcer = self.announcer.clone();
            runtime.spawn(async move { announcer.withdraw(full).await });
        }
    }
}

fn enqueue(queue: &mpsc::Sender<Hint>, digest: Digest, bytes: u64) {
    if bytes < MIN_BYTES {
        return;
    }
    let blob = PrefetchedBlob { digest, bytes };
    if queue.try_send(Hint::Announced(blob)).is_err() {
        tracing::debug!("a blob is not announced to agents: the queue is full");
    }
}

impl Announcer {
    /// Runs until the import or the controller ends.
    async fn announce(self, mut hints: mpsc::Receiver<Hint>) {
        while let Some(hint) = hints.recv().await {
            let blob = match hint {
                Hint::Announced(blob) => blob,
                Hint::Withdrawn(withdrawn) => {
                    self.withdraw(withdrawn).await;
                    continue;
                }
            };
            let most = self.config.current().limits.prefetching_agents;
            let addresses = self
                .agents
                .addresses(usize::try_from(most).unwrap_or(usize::MAX));
            if !addresses.is_empty() {
                self.images.announce(&blob.digest);
            }
            let hint = Prefetch {
                blobs: vec![blob],
                withdrawn: Vec::new(),
            };
            self.send(addresses, &hint).await;
        }
    }

    /// Has agents remove what they prefetched of a refused image.
    async fn withdraw(&self, withdrawn: Vec<Digest>) {
        for digests in withdrawn.chunks(MAX_WITHDRAWN) {
            let hint = Prefetch {
                blobs: Vec::new(),
                withdrawn: digests.to_vec(),
            };
            self.send(self.agents.addresses(usize::MAX), &hint).await;
        }
    }

    async fn send(&self, addresses: Vec<AgentAddress>, hint: &Prefetch) {
        let requests = addresses.into_iter().map(async |address| {
            let answer = self.agents.client().prefetch(address, hint).await;
            if let Err(error) = answer {
                tracing::debug!(%error, "an agent does not prefetch");
            }
        });
        futures_util::future::join_all(requests).await;
    }
}
