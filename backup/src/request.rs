//! What the program is asked to do.

use std::{fmt, num::NonZeroU32, path::PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The first line of standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which repository.
    pub repository: Repository,
    /// What to do.
    pub operation: Operation,
    /// Bounds of time, memory and output.
    #[serde(default)]
    pub limits: Limits,
}

/// A repository and how to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// `file:///directory` or `s3://bucket/prefix`.
    pub location: String,
    /// The password that its data is encrypted by.
    pub password: Secret,
    /// Its id, as `init` gave it. Another repository at the location is refused, and so is the creation of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_id: Option<String>,
    /// How to reach a bucket; for `s3://` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// How to reach a bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// URL of the server; Amazon's by default. It is spoken to without TLS only where it begins with `http://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region.
    #[serde(default = "region")]
    pub region: String,
    /// Whether the bucket is in the path of URLs, rather than in the host name.
    #[serde(default = "yes")]
    pub path_style: bool,
    /// Id of the access key; requests are not signed without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// File with certificates (PEM) of authorities that the server's certificate may be of, besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn yes() -> bool {
    true
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: region(),
            path_style: true,
            access_key_id: None,
            secret_access_key: None,
            ca_file: None,
        }
    }
}

/// A value that is in no message: its debug output is a placeholder.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "zeroizing")] Zeroizing<String>);

impl Secret {
    /// A secret of this value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

mod zeroizing {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        value: &Zeroizing<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Creates the repository where there is certainly none.
    Init(Init),
    /// Stores a tree or a stream as a snapshot.
    Backup(Backup),
    /// Restores a snapshot.
    Restore(Restore),
    /// Lists snapshots.
    List(List),
    /// Removes old snapshots of one volume, and data that no snapshot has.
    Forget(Forget),
    /// Looks for damage.
    Check(Check),
    /// Removes locks of programs that are no more. Every operation that a lock stops does so, too.
    Unlock(Unlock),
}

/// Creates a repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {}

/// Removes stale locks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlock {}

/// Stores a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// What to store.
    pub source: Source,
    /// The volume that it is of: retention counts by it, whatever the host.
    pub volume: String,
    /// The host that makes it.
    pub host: String,
    /// Further tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Time of the snapshot (RFC 3339); now by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Which snapshot the tree is compared with: files that it has are not read.
    #[serde(default)]
    pub parent: Parent,
    /// A first pass over files in use: retention does not count it, and nobody restores it unknowingly.
    #[serde(default)]
    pub draft: bool,
    /// Removes the parent afterwards, if it is a draft of the same volume.
    #[serde(default)]
    pub forget_parent: bool,
    /// Leaves out what cannot be read, with a warning, instead of failing.
    #[serde(default)]
    pub skip_unreadable: bool,
}

/// What is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A directory, with its own owner and mode, and everything below it on the same file system.
    Tree {
        /// The directory.
        path: PathBuf,
    },
    /// The frames of standard input.
    Stream {
        /// Name of the file in the snapshot.
        name: String,
    },
}

/// Which snapshot a tree is compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// None: every file is read.
    None,
    /// The volume's newest one that is no draft, if there is one.
    #[default]
    Newest,
    /// This one, which has to exist.
    Snapshot(String),
}

/// Restores a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Its id, in full.
    pub snapshot: String,
    /// Where to.
    pub target: Target,
}

/// Where a snapshot is restored to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A directory that is there and empty. It gets the owner and the mode of the one that was stored.
    Tree {
        /// The directory.
        path: PathBuf,
    },
    /// Standard output.
    Stream,
}

/// Lists snapshots.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Only those of this volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Only those that this host made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only those with all of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Removes old snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// The volume whose snapshots are counted.
    pub volume: String,
    /// How many of the newest stay. Drafts do not count, and go once they are older than a snapshot that does.
    pub keep: NonZeroU32,
    /// Whether data that no snapshot has is marked and, after the grace period, deleted.
    #[serde(default)]
    pub prune: bool,
}

/// Looks for damage.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Whether all data is read, instead of the structure only.
    #[serde(default)]
    pub read_data: bool,
}

/// Bounds of time, memory and output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Processors that are used.
    pub threads: NonZeroU32,
    /// Size of the repository's files with data (MiB). For `init` only: the repository remembers it.
    pub pack_mib: NonZeroU32,
    /// Level of zstd's compression, from 1 to 22. For `init` only: the repository remembers it.
    pub compression: u8,
    /// Maximum time of one request to the storage (seconds).
    pub request_seconds: NonZeroU32,
    /// How often a failed request is tried again, each time after a longer pause.
    pub retries: u32,
    /// Maximum time for all tries of a request (seconds).
    pub retry_seconds: u32,
    /// How long to wait for other programs' locks (seconds).
    pub lock_seconds: u32,
    /// How long to wait for the caller's commit (seconds).
    pub commit_seconds: NonZeroU32,
    /// How long data stays that no snapshot has any more (hours): longer than a backup takes.
    pub grace_hours: NonZeroU32,
    /// Maximum number of warnings in a result.
    pub warnings: u32,
    /// Maximum number of snapshots in a list.
    pub snapshots: u32,
    /// Maximum depth of directories.
    pub depth: u32,
    /// Interval of progress (milliseconds).
    pub progress_milliseconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: number(2),
            pack_mib: number(8),
            compression: 3,
            request_seconds: number(120),
            retries: 8,
            retry_seconds: 180,
            lock_seconds: 300,
            commit_seconds: number(300),
            grace_hours: number(48),
            warnings: 100,
            snapshots: 1000,
            depth: 256,
            progress_milliseconds: 1000,
        }
    }
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let request: Request = serde_json::from_str(
            r#"{
                "repository": {
                    "location": "s3://backups/cluster",
                    "password": "correct horse",
                    "s3": {"endpoint": "http://127.0.0.1:9000", "secret_access_key": "hidden"}
                },
                "operation": {"backup": {
                    "source": {"tree": {"path": "/srv/volume"}},
                    "volume": "shop/data/1", "host": "w1", "parent": {"snapshot": "abcd"}
                }}
            }"#,
        )
        .expect("a request");
        assert_eq!(request.limits, Limits::default());
        assert_eq!(request.repository.password.reveal(), "correct horse");
        let debug = format!("{request:?}");
        assert!(
            !debug.contains("horse") && !debug.contains("hidden"),
            "{debug}"
        );
        let Operation::Backup(backup) = request.operation else {
            panic!("another operation");
        };
        assert_eq!(backup.parent, Parent::Snapshot("abcd".to_owned()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<Limits>(r#"{"thread": 3}"#).expect_err("a typo");
        assert!(error.to_string().contains("thread"), "{error}");
    }
}
