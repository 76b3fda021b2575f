//! File systems, directories and trees of images that are mounted into each container of a service.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ServiceConfig, targets::is_plain, validate::length_problem};
use crate::{ids::Digest, settings::Problem, units::Bytes};

/// Most mounts of one service.
pub const MAX_MOUNTS: usize = 64;
/// Smallest tmpfs: a page.
const MIN_TMPFS: Bytes = Bytes(4096);

/// Files that the agent writes for each process. A read-only tree above them would leave no place for them.
const WRITTEN_BELOW: &str = "/etc";

/// A mount of a service's containers: exactly one of `tmpfs`, `host` and `image` says what is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Its absolute path in the container. Directories that the image does not have are created.
    pub path: String,
    /// A file system in memory of this size, which is empty at each start and counts as memory of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Bytes>,
    /// A directory of the worker, which its `agent.toml` lists in `host_paths`, or one below. Only such workers run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// An image whose files are mounted, always read-only: named as the service's `image` is. Only workers whose agents know this
    /// key run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest of that image, which belongs to the revision. The controller sets it with each deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Whether the container may not write to the directory of the worker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// What is wrong with the mounts of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mounts = &config.mount;
    let mut problems = Vec::new();
    problems.extend(length_problem("mount", "mounts", mounts.len(), MAX_MOUNTS));
    let sizes = mounts.iter().filter_map(|mount| mount.tmpfs);
    let whole = sizes.fold(0, |sum: u64, size| sum.saturating_add(size.0));
    if whole > config.memory.0 {
        let message = format!(
            "all tmpfs together have {}, more than `memory`, {}, which they count for",
            Bytes(whole),
            config.memory
        );
        problems.push(Problem::new("mount", message).depending_on("memory"));
    }
    for (index, mount) in mounts.iter().enumerate() {
        let problem = mount.problem();
        problems.extend(problem.map(|(key, message)| {
            let key = format!("mount[{index}].{key}");
            Problem::new(key, message)
        }));
    }
    problems
}

impl Mount {
    /// The key that is wrong, and why.
    fn problem(&self) -> Option<(&'static str, String)> {
        let given = [
            ("tmpfs", self.tmpfs.is_some()),
            ("host", self.host.is_some()),
            ("image", self.image.is_some()),
        ];
        let mut given = given.into_iter().filter_map(|(key, is)| is.then_some(key));
        if given.next().is_none() {
            let message = "say what is mounted: `tmpfs`, the size of a file system in memory, `host`, a directory of the worker, or \
                           `image`, an image whose files are mounted";
            return Some(("path", message.to_owned()));
        }
        if let Some(second) = given.next() {
            let message = "give only one of tmpfs, host and image";
            return Some((second, message.to_owned()));
        }
        if self.digest.is_some() && self.image.is_none() {
            let message = "only a mount with `image` has one, and the controller sets it";
            return Some(("digest", message.to_owned()));
        }
        self.tmpfs_problem()
            .or_else(|| self.host_problem())
            .or_else(|| self.image_problem())
    }

    fn tmpfs_problem(&self) -> Option<(&'static str, String)> {
        let size = self.tmpfs?;
        if self.read_only {
            let message = "an empty file system that cannot be written has no use";
            return Some(("read_only", message.to_owned()));
        }
        let message = || format!("write a size of at least {MIN_TMPFS}");
        (size < MIN_TMPFS).then(|| ("tmpfs", message()))
    }

    fn host_problem(&self) -> Option<(&'static str, String)> {
        let host = self.host.as_deref().filter(|host| !is_plain(host))?;
        let message = format!(
            "{host:?} is not the path of a directory: write an absolute one without `.`, `..` and doubled or final slashes"
        );
        Some(("host", message))
    }

    fn image_problem(&self) -> Option<(&'static str, String)> {
        let image = self.image.as_deref()?;
        if image.is_empty() {
            let message = "name an image: name:tag, name@sha256:... or sha256:...";
            return Some(("image", message.to_owned()));
        }
        let message = || {
            format!(
                "the files of an image are read-only, and the agent writes files below {WRITTEN_BELOW} for every process: write \
                 another path"
            )
        };
        (self.path == WRITTEN_BELOW).then(|| ("path", message()))
    }
}

#[cfg(test)]
mod tests;
