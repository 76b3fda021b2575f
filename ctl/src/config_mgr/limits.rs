//! `[limits]`: every bound on the controller's input, with its default.

use serde::{Deserialize, Serialize};
use tucano_api::{
    service::secret::MAX_SECRET_BYTES,
    settings::{MAX_SETTINGS_BYTES, Problem, Validate},
    units::{Bytes, Span},
};
use utoipa::ToSchema;

use super::file::{check_range, check_span};

/// Every bound on the controller's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest image archive, as uploaded.
    pub image_bytes: Bytes,
    /// Largest manifest, index or configuration of an image.
    pub image_document_bytes: Bytes,
    /// Largest sum of the files of an image's layer.
    pub image_layer_bytes: Bytes,
    /// Most entries of an image's layer.
    pub image_layer_entries: u64,
    /// Largest sum of the extended attributes of an image's layer.
    pub image_layer_xattr_bytes: Bytes,
    /// Most layers of an image.
    pub image_layers: u64,
    /// Most uploads to the registry at once.
    pub registry_uploads: u64,
    /// Longest inactivity of an upload to the registry.
    pub registry_upload_idle: Span,
    /// Most repositories of the registry.
    pub registry_repositories: u64,
    /// Most tags of a repository, and most manifests.
    pub registry_tags: u64,
    /// How long the registry keeps untagged content.
    pub registry_untagged_kept: Span,
    /// Longest duration of a pull from another registry.
    pub pull: Span,
    /// Largest static configuration of a service.
    pub config_bytes: Bytes,
    /// Most services.
    pub services: u64,
    /// Most services that are deployed in one request.
    pub application_services: u64,
    /// Most secrets.
    pub secrets: u64,
    /// Largest value of a secret.
    pub secret_bytes: Bytes,
    /// Most uploads at once.
    pub uploads: u64,
    /// Up to this number of agents prefetch an image's layers while it is uploaded for a deploy.
    pub prefetching_agents: u64,
    /// Longest inactivity in a request's body.
    pub body_idle: Span,
    /// Largest `timeout` of `wait=true`.
    pub wait: Span,
    /// Largest report of an agent.
    pub report_bytes: Bytes,
    /// Most connections to the API at once.
    pub connections: u64,
    /// Most concurrent connections to the API from one address (IPv6: from one /64). Needs a restart.
    pub connections_per_peer: u64,
    /// Most connections from workers' addresses in addition to `connections`. Needs a restart.
    pub worker_connections: u64,
    /// Longest time for a request's body; 4 KiB that have arrived extend it by a second. Needs a restart.
    pub body_time: Span,
    /// Longest time to receive a request's head, and longest idle time of a connection. Needs a restart.
    pub header_timeout: Span,
    /// Longest time for an agent's response head.
    pub agent_timeout: Span,
    /// Bytes that are kept of a restart command's output.
    pub restart_output_bytes: Bytes,
    /// Longest time for a webhook's response.
    pub webhook_timeout: Span,
    /// Most attempts to deliver an alert.
    pub webhook_attempts: u64,
    /// Most alerts queued for one webhook; beyond, the oldest are dropped.
    pub webhook_queue: u64,
    /// Most lines of logs per request.
    pub log_lines: u64,
    /// Longest line of logs; longer ones are split.
    pub log_line_bytes: Bytes,
    /// Most concurrent commands in containers. Needs a restart.
    pub sessions: u64,
    /// Largest database. Needs a restart.
    pub database_bytes: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_bytes: Bytes(8 << 30),
            image_document_bytes: Bytes::mib(4),
            image_layer_bytes: Bytes(32 << 30),
            image_layer_entries: 2_000_000,
            image_layer_xattr_bytes: Bytes::mib(64),
            image_layers: 128,
            registry_uploads: 64,
            registry_upload_idle: Span::secs(600),
            registry_repositories: 20_000,
            registry_tags: 10_000,
            registry_untagged_kept: Span::secs(3600),
            pull: Span::secs(1800),
            config_bytes: Bytes(256 << 10),
            services: 20_000,
            application_services: 64,
            secrets: 10_000,
            secret_bytes: Bytes(MAX_SECRET_BYTES as u64),
            uploads: 4,
            prefetching_agents: 5,
            body_idle: Span::secs(60),
            wait: Span::secs(3600),
            report_bytes: Bytes::mib(8),
            connections: 16_384,
            connections_per_peer: 256,
            worker_connections: 8192,
            body_time: Span::secs(60),
            header_timeout: Span::secs(30),
            agent_timeout: Span::secs(5),
            restart_output_bytes: Bytes(1024),
            webhook_timeout: Span::secs(5),
            webhook_attempts: 5,
            webhook_queue: 1000,
            log_lines: 10_000,
            log_line_bytes: Bytes(64 << 10),
            sessions: 64,
            database_bytes: Bytes(4 << 30),
        }
    }
}

impl Limits {
    /// The bounds of the image store.
    pub fn of_images(&self) -> tucano_oci_image::Limits {
        tucano_oci_image::Limits {
            // The deployer enforces `image_bytes` during the upload, so that a reload can change it.
            archive_bytes: u64::MAX,
            document_bytes: self.image_document_bytes.0,
            layer_bytes: self.image_layer_bytes.0,
            layer_entries: self.image_layer_entries,
            layers: usize::try_from(self.image_layers).unwrap_or(usize::MAX),
            layer_xattr_bytes: self.image_layer_xattr_bytes.0,
            ..tucano_oci_image::Limits::default()
        }
    }
}

impl Limits {
    /// The bounds of the registry.
    pub fn of_registry(&self) -> tucano_oci_distribution::Limits {
        tucano_oci_distribution::Limits {
            blob_bytes: self.image_bytes.0,
            manifest_bytes: self.image_document_bytes.0,
            sessions: usize::try_from(self.registry_uploads).unwrap_or(usize::MAX),
            session_idle: self.registry_upload_idle.0,
            body_idle: self.body_idle.0,
            repositories: self.registry_repositories,
            tags: self.registry_tags,
            manifests: self.registry_tags,
            untagged_kept: self.registry_untagged_kept.0,
            database_bytes: self.database_bytes.0,
        }
    }

    /// The bounds of pulls from other registries.
    pub fn of_pulls(&self) -> tucano_oci_distribution::client::Bounds {
        tucano_oci_distribution::client::Bounds {
            image_bytes: self.image_bytes.0,
            document_bytes: self.image_document_bytes.0,
            time: self.pull.0,
        }
    }

    /// The bounds that only concern the registry and need a restart.
    pub(super) fn of_registry_key(&self) -> (u64, Span, u64, u64, Span) {
        (
            self.registry_uploads,
            self.registry_upload_idle,
            self.registry_repositories,
            self.registry_tags,
            self.registry_untagged_kept,
        )
    }

    /// The bounds that the image store is opened with.
    pub(super) fn of_images_key(&self) -> [u64; 5] {
        [
            self.image_document_bytes.0,
            self.image_layer_bytes.0,
            self.image_layer_entries,
            self.image_layer_xattr_bytes.0,
            self.image_layers,
        ]
    }
}

impl Validate for Limits {
    fn problems(&self) -> Vec<Problem> {
        const TIB: u64 = 1 << 40;
        let mut problems = Vec::new();
        for (key, value, least, most) in [
            ("image_bytes", self.image_bytes.0, 1024, 64 * TIB),
            (
                "image_document_bytes",
                self.image_document_bytes.0,
                1024,
                1 << 30,
            ),
            (
                "image_layer_bytes",
                self.image_layer_bytes.0,
                1024,
                64 * TIB,
            ),
            ("image_layer_entries", self.image_layer_entries, 1, 1 << 32),
            (
                "image_layer_xattr_bytes",
                self.image_layer_xattr_bytes.0,
                1024,
                1 << 40,
            ),
            ("image_layers", self.image_layers, 1, 10_000),
            ("registry_uploads", self.registry_uploads, 1, 10_000),
            (
                "registry_repositories",
                self.registry_repositories,
                1,
                1_000_000,
            ),
            ("registry_tags", self.registry_tags, 1, 1_000_000),
            (
                "config_bytes",
                self.config_bytes.0,
                64,
                MAX_SETTINGS_BYTES as u64,
            ),
            ("services", self.services, 1, 1_000_000),
            ("application_services", self.application_services, 1, 1000),
            ("uploads", self.uploads, 1, 1000),
            ("prefetching_agents", self.prefetching_agents, 0, 1000),
            ("report_bytes", self.report_bytes.0, 1024, 1 << 30),
            ("connections", self.connections, 8, 100_000),
            (
                "connections_per_peer",
                self.connections_per_peer,
                8,
                100_000,
            ),
            ("worker_connections", self.worker_connections, 0, 100_000),
            (
                "restart_output_bytes",
                self.restart_output_bytes.0,
                0,
                1 << 20,
            ),
            ("webhook_attempts", self.webhook_attempts, 1, 100),
            ("webhook_queue", self.webhook_queue, 1, 1_000_000),
            ("log_lines", self.log_lines, 1, 10_000_000),
            ("log_line_bytes", self.log_line_bytes.0, 80, 1 << 24),
            ("secrets", self.secrets, 1, 1_000_000),
            (
                "secret_bytes",
                self.secret_bytes.0,
                1,
                MAX_SECRET_BYTES as u64,
            ),
            ("sessions", self.sessions, 1, 4096),
            ("database_bytes", self.database_bytes.0, 256 << 10, 16 * TIB),
        ] {
            problems.extend(check_range(&format!("limits.{key}"), value, least, most).err());
        }
        for (key, span, most_secs) in [
            ("body_idle", self.body_idle, 3600),
            ("body_time", self.body_time, 3600),
            ("registry_upload_idle", self.registry_upload_idle, 86_400),
            (
                "registry_untagged_kept",
                self.registry_untagged_kept,
                365 * 86_400,
            ),
            ("pull", self.pull, 86_400),
            ("wait", self.wait, 86_400),
            ("header_timeout", self.header_timeout, 3600),
            ("agent_timeout", self.agent_timeout, 600),
            ("webhook_timeout", self.webhook_timeout, 600),
        ] {
            problems.extend(check_span(&format!("limits.{key}"), span, 10, most_secs).err());
        }
        problems
    }
}
