//! Announces each complete blob of an image to the agents during its upload, so that they fetch and unpack layers early.
//! Announcements are hints: an agent that misses one fetches the blob when it is needed.

use std::sync::Arc;

use tokio::sync::mpsc;
use tucano_api::{
    agent::{Prefetch, PrefetchedBlob},
    ids::Digest,
};
use tucano_oci_image::{BlobListener, Store};

use super::images::from_oci;
use crate::{agent_mgr::AgentManager, config_mgr::ConfigManager};

/// Smallest blob that is announced.
const MIN_BYTES: u64 = 64 << 10;
/// Blobs that wait to be announced; beyond, they are skipped.
const QUEUE: usize = 64;

/// Announces blobs to agents.
#[derive(Debug, Clone)]
pub struct Prefetcher {
    announcer: Announcer,
    /// Blobs that were pushed to the registry.
    pushed: mpsc::Sender<PrefetchedBlob>,
}

#[derive(Debug, Clone)]
struct Announcer {
    config: Arc<ConfigManager>,
    agents: Arc<AgentManager>,
}

impl Prefetcher {
    /// Announces to `agents`, up to `limits.prefetching_agents` of them. Must be called within a runtime.
    pub fn new(config: Arc<ConfigManager>, agents: Arc<AgentManager>) -> Self {
        let (pushed, blobs) = mpsc::channel(QUEUE);
        let announcer = Announcer { config, agents };
        tokio::spawn(announcer.clone().announce(blobs));
        Self { announcer, pushed }
    }

    /// Announces a blob that was pushed for a deploy.
    pub(super) fn pushed(&self, digest: Digest, bytes: u64) {
        enqueue(&self.pushed, digest, bytes);
    }

    /// A callback for an import, called for each blob; blobs that `store` already has are not announced.
    pub(super) fn observer(&self, store: Store) -> BlobListener {
        let (sender, blobs) = mpsc::channel(QUEUE);
        tokio::spawn(self.announcer.clone().announce(blobs));
        Box::new(move |digest, bytes| {
            if store.contains(digest) {
                return;
            }
            if let Ok(digest) = from_oci(digest) {
                enqueue(&sender, digest, bytes);
            }
        })
    }
}

fn enqueue(queue: &mpsc::Sender<PrefetchedBlob>, digest: Digest, bytes: u64) {
    if bytes < MIN_BYTES {
        return;
    }
    if queue.try_send(PrefetchedBlob { digest, bytes }).is_err() {
        tracing::debug!("a blob is not announced to agents: the queue is full");
    }
}

impl Announcer {
    /// Runs until the import or the controller ends.
    async fn announce(self, mut blobs: mpsc::Receiver<PrefetchedBlob>) {
        while let Some(blob) = blobs.recv().await {
            let most = self.config.current().limits.prefetching_agents;
            let addresses = self
                .agents
                .addresses(usize::try_from(most).unwrap_or(usize::MAX));
            let hint = Prefetch {
                blobs: vec![blob],
                withdrawn: Vec::new(),
            };
            let requests = addresses.into_iter().map(async |address| {
                let answer = self.agents.client().prefetch(address, &hint).await;
                if let Err(error) = answer {
                    tracing::debug!(%error, "an agent does not prefetch");
                }
            });
            futures_util::future::join_all(requests).await;
        }
    }
}
