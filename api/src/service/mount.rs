//! File systems and directories that are mounted into each container of a service.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ServiceConfig, targets::is_plain, validate::length_problem};
use crate::{settings::Problem, units::Bytes};

/// Most mounts of one service.
pub const MAX_MOUNTS: usize = 64;
/// Smallest tmpfs: a page.
const MIN_TMPFS: Bytes = Bytes(4096);

/// A mount of a service's containers: exactly one of `tmpfs` and `host` says what is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
        match (self.tmpfs, &self.host) {
            (None, None) => {
                let message = "say what is mounted: `tmpfs`, the size of a file system in memory, or `host`, a directory of the worker";
                Some(("path", message.to_owned()))
            }
            (Some(_), Some(_)) => Some(("host", "give only one of tmpfs and host".to_owned())),
            (Some(_), None) if self.read_only => {
                let message = "an empty file system that cannot be written has no use";
                Some(("read_only", message.to_owned()))
            }
            (Some(size), None) if size < MIN_TMPFS => {
                Some(("tmpfs", format!("write a size of at least {MIN_TMPFS}")))
            }
            (None, Some(host)) if !is_plain(host) => {
                let message = format!(
                    "{host:?} is not the path of a directory: write an absolute one without `.`, `..` and doubled or final slashes"
                );
                Some(("host", message))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
