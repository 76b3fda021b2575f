//! While an image is still uploaded, in an archive or blob by blob, agents hear of each blob of it that is whole: they fetch
//! and unpack layers meanwhile, and the processes start sooner. Nothing depends on it: an agent that did not hear fetches them when it must.

use std::sync::Arc;

use tokio::sync::mpsc;
use tucano_api::{
    agent::{Prefetch, PrefetchedBlob},
    ids::Digest,
};
use tucano_oci_image::{BlobListener, Store};

use super::images::from_oci;
use crate::{agent_mgr::AgentManager, config_mgr::ConfigManager};

/// Smaller blobs are fetched as soon as they are needed.
const LEAST_BYTES: u64 = 64 << 10;
/// Blobs that wait to be told of; of more nobody is told.
const WAITING: usize = 64;

/// Tells agents of blobs.
#[derive(Debug, Clone)]
pub struct Prefetcher {
    telling: Telling,
    /// Those that are pushed one by one wait here.
    pushed: mpsc::Sender<PrefetchedBlob>,
}

#[derive(Debug, Clone)]
struct Telling {
    config: Arc<ConfigManager>,
    agents: Arc<AgentManager>,
}

impl Prefetcher {
    /// Tells the agents of `agents`, where they are few enough. Called within the runtime that does it.
    pub fn new(config: Arc<ConfigManager>, agents: Arc<AgentManager>) -> Self {
        let (pushed, blobs) = mpsc::channel(WAITING);
        let telling = Telling { config, agents };
        tokio::spawn(telling.clone().tell(blobs));
        Self { telling, pushed }
    }

    /// Agents hear of a blob that was pushed for a deploy, whose manifest comes last.
    pub(super) fn pushed(&self, digest: Digest, bytes: u64) {
        wait(&self.pushed, digest, bytes);
    }

    /// What an import is to call for each blob that has come; agents hear of those that `store` does not have yet.
    pub(super) fn listener(&self, store: Store) -> BlobListener {
        let (sender, blobs) = mpsc::channel(WAITING);
        tokio::spawn(self.telling.clone().tell(blobs));
        Box::new(move |digest, bytes| {
            if store.contains(digest) {
                return;
            }
            if let Ok(digest) = from_oci(digest) {
                wait(&sender, digest, bytes);
            }
        })
    }
}

fn wait(waiting: &mpsc::Sender<PrefetchedBlob>, digest: Digest, bytes: u64) {
    if bytes < LEAST_BYTES {
        return;
    }
    if waiting.try_send(PrefetchedBlob { digest, bytes }).is_err() {
        tracing::debug!("agents are not told of a blob: too many wait");
    }
}

impl Telling {
    /// Ends with the import, or with the controller.
    async fn tell(self, mut blobs: mpsc::Receiver<PrefetchedBlob>) {
        while let Some(blob) = blobs.recv().await {
            let most = self.config.current().limits.prefetching_agents;
            let addresses = self
                .agents
                .addresses(usize::try_from(most).unwrap_or(usize::MAX));
            let hint = Prefetch { blobs: vec![blob] };
            let told = addresses.into_iter().map(async |address| {
                let told = self.agents.client().prefetch(address, &hint).await;
                if let Err(error) = told {
                    tracing::debug!(%error, "an agent does not prefetch");
                }
            });
            futures_util::future::join_all(told).await;
        }
    }
}
