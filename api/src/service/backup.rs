//! Backups of a volume, as its service configures them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ServiceConfig, targets::is_plain};
use crate::{ids::SecretName, settings::Problem, units::Span};

/// Most backups that are kept of a volume.
pub const MAX_KEEP: u32 = 10_000;
/// Least time between two backups.
pub const MIN_EVERY: Span = Span::secs(60);
/// Longest time for which a process is frozen.
pub const MAX_FREEZE: Span = Span::secs(600);
/// Most words of a command, and most bytes of all of them.
const MAX_WORDS: usize = 64;
const MAX_COMMAND_BYTES: usize = 16 << 10;
const MAX_LOCATION_BYTES: usize = 1024;

/// When and where a volume is backed up. Each slot's volume has snapshots of its own in the repository, which has restic's format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The time from one backup to the next. Without it there are only those that `tucano volume backup` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// How many backups stay: the newest ones.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// The repository: `s3://bucket/prefix`, or `file:///directory` on the volume's worker, which lists it in `backup_paths`.
    pub to: String,
    /// The secret with the repository's password. It is needed to read the backups: without it they are lost.
    pub password: SecretName,
    /// The secret with the access key of an S3 bucket, as `ID:KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretName>,
    /// The URL of an S3 server that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A command that writes the data to its standard output, such as `["pg_dumpall"]`. It runs in the container, and its output is
    /// what is stored. Without it the files of the volume are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dump: Vec<String>,
    /// A command that reads the output of `dump` from its standard input. It runs in the container when a backup is restored, on a
    /// volume as it is on first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<String>,
    /// How long the process may be frozen while the files that have changed meanwhile are stored. A backup that would take longer
    /// fails.
    #[serde(default = "default_freeze")]
    pub freeze_at_most: Span,
}

fn default_keep() -> u32 {
    14
}

fn default_freeze() -> Span {
    Span::secs(10)
}

impl Backup {
    /// The secrets that it takes to reach the repository.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        std::iter::once(&self.password).chain(&self.access_key)
    }

    /// The directory of a repository that is on the worker.
    pub fn directory(&self) -> Option<&str> {
        self.to.strip_prefix("file://")
    }
}

impl ServiceConfig {
    /// The secrets that the backups of its volumes take. Processes do not have them.
    pub fn backup_secrets(&self) -> impl Iterator<Item = &SecretName> {
        let backups = self
            .volume
            .iter()
            .filter_map(|volume| volume.backup.as_ref());
        backups.flat_map(Backup::secrets)
    }
}

/// What is wrong with the backups of a service's volumes.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let volumes = config.volume.iter().enumerate();
    let backups = volumes.filter_map(|(index, volume)| Some((index, volume.backup.as_ref()?)));
    let problems = backups.flat_map(|(index, backup)| {
        let of_one = backup.problems().into_iter();
        of_one.map(move |(key, message)| {
            Problem::new(format!("volume[{index}].backup.{key}"), message)
        })
    });
    problems.collect()
}

impl Backup {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        problems.extend(self.location_problem().map(|message| ("to", message)));
        if self.every.is_some_and(|every| every < MIN_EVERY) {
            problems.push(("every", format!("write at least {MIN_EVERY}")));
        }
        if !(1..=MAX_KEEP).contains(&self.keep) {
            problems.push((
                "keep",
                format!("{} is out of range: write 1 to {MAX_KEEP}", self.keep),
            ));
        }
        if self.freeze_at_most > MAX_FREEZE {
            problems.push(("freeze_at_most", format!("write at most {MAX_FREEZE}")));
        }
        let is_bucket = self.to.starts_with("s3://");
        let only_buckets = [
            ("access_key", self.access_key.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
        ];
        for (key, _) in only_buckets
            .into_iter()
            .filter(|(_, given)| *given && !is_bucket)
        {
            problems.push((key, "only a repository in an S3 bucket has one".to_owned()));
        }
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if self
            .endpoint
            .as_deref()
            .is_some_and(|endpoint| !is_url(endpoint))
        {
            problems.push((
                "endpoint",
                "write a URL, such as \"https://s3.example\"".to_owned(),
            ));
        }
        match (self.dump.is_empty(), self.load.is_empty()) {
            (true, false) => problems.push((
                "load",
                "there is no `dump` whose output it reads".to_owned(),
            )),
            (false, true) => {
                let message = "say with `load` how its output is restored, such as [\"psql\"]";
                problems.push(("dump", message.to_owned()));
            }
            _ => {}
        }
        for (key, command) in [("dump", &self.dump), ("load", &self.load)] {
            let bytes: usize = command.iter().map(String::len).sum();
            if command.len() > MAX_WORDS || bytes > MAX_COMMAND_BYTES {
                problems.push((
                    key,
                    format!(
                        "a command has at most {MAX_WORDS} words and {MAX_COMMAND_BYTES} bytes"
                    ),
                ));
            } else if command.iter().any(|word| word.contains('\0'))
                || command.first().is_some_and(String::is_empty)
            {
                problems.push((
                    key,
                    "a word has a NUL byte, or the first one is empty".to_owned(),
                ));
            }
        }
        problems
    }

    fn location_problem(&self) -> Option<String> {
        if self.to.len() > MAX_LOCATION_BYTES {
            return Some(format!("a location has at most {MAX_LOCATION_BYTES} bytes"));
        }
        if let Some(directory) = self.directory() {
            return (!is_plain(directory)).then(|| {
                format!("{directory:?} is not the path of a directory: write \"file:///srv/backups\", without `.`, `..` and doubled or final slashes")
            });
        }
        let Some(bucket) = self.to.strip_prefix("s3://") else {
            return Some("write s3://bucket/prefix, or file:///directory".to_owned());
        };
        let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let is_bucket = (3..=63).contains(&name.len()) && name.chars().all(is_name);
        let is_prefix = prefix.is_empty() || is_plain(&format!("/{prefix}"));
        (!is_bucket || !is_prefix).then(|| {
            format!(
                "{:?} is not a bucket with a prefix: write s3://bucket/prefix",
                self.to
            )
        })
    }
}

#[cfg(test)]
mod tests;
