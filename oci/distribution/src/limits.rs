//! Limits of a registry.

use std::time::Duration;

/// The limits of a registry.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest blob.
    pub blob_bytes: u64,
    /// Largest manifest or index.
    pub manifest_bytes: u64,
    /// Most uploads at once.
    pub sessions: usize,
    /// Longest idle time of an upload before it is removed.
    pub session_idle: Duration,
    /// Longest silence within a request's body.
    pub body_idle: Duration,
    /// Most repositories.
    pub repositories: u64,
    /// Most tags of a repository.
    pub tags: u64,
    /// Most manifests of a repository.
    pub manifests: u64,
    /// How long blobs and manifests without a tag are kept.
    pub untagged_kept: Duration,
    /// Largest database of references.
    pub database_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes: 8 << 30,
            manifest_bytes: 4 << 20,
            sessions: 64,
            session_idle: Duration::from_secs(600),
            body_idle: Duration::from_secs(60),
            repositories: 1000,
            tags: 10_000,
            manifests: 10_000,
            untagged_kept: Duration::from_secs(3600),
            database_bytes: 1 << 30,
        }
    }
}

/// Most descriptors of one manifest.
pub(crate) const DESCRIPTORS: usize = 10_000;
/// Largest list of referrers in one answer; more come on the next page.
pub(crate) const REFERRERS_BYTES: usize = 4 << 20;
/// Most names or tags in one answer; more come on the next page.
pub(crate) const PAGE: u64 = 10_000;
