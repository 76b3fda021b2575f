//! File systems that are mounted into each container of a service.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ServiceConfig, file};
use crate::{settings::Problem, units::Bytes};

/// Most mounts of one service.
pub const MAX_MOUNTS: usize = 64;
/// Smallest tmpfs: a page.
const MIN_TMPFS: Bytes = Bytes(4096);

/// A mount of a service's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Its absolute path in the container. Directories that the image does not have are created.
    pub path: String,
    /// A file system in memory of this size, which is empty at each start and counts as memory of the process.
    pub tmpfs: Bytes,
}

/// What is wrong with the mounts of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mounts = &config.mount;
    let mut problems = Vec::new();
    if mounts.len() > MAX_MOUNTS {
        let message = format!(
            "{} mounts are too many: the limit is {MAX_MOUNTS}",
            mounts.len()
        );
        problems.push(Problem::new("mount", message));
    }
    let whole: u64 = mounts
        .iter()
        .fold(0, |sum, mount| sum.saturating_add(mount.tmpfs.0));
    if whole > config.memory.0 {
        let message = format!(
            "all tmpfs together have {}, more than `memory`, {}, which they count for",
            Bytes(whole),
            config.memory
        );
        problems.push(Problem::new("mount", message).depending_on("memory"));
    }
    for (index, mount) in mounts.iter().enumerate() {
        let key = |name: &str| format!("mount[{index}].{name}");
        problems.extend(
            file::path_problem(&mount.path, "a directory")
                .map(|message| Problem::new(key("path"), message)),
        );
        if mount.tmpfs < MIN_TMPFS {
            let message = format!("write a size of at least {MIN_TMPFS}");
            problems.push(Problem::new(key("tmpfs"), message));
        }
        problems.extend(conflict(config, index).map(|message| Problem::new(key("path"), message)));
    }
    problems
}

/// Why a mount cannot be where it is: something else is mounted there, above or below.
fn conflict(config: &ServiceConfig, index: usize) -> Option<String> {
    let path = &config.mount[index].path;
    if config.read_only && file::overlap(path, "/tmp") {
        let message = "with `read_only` a tmpfs is on /tmp already: `tmp_size` sets its size";
        return Some(message.to_owned());
    }
    let others = config.mount[..index].iter().map(|other| &other.path);
    let mut others = others.chain(config.file.iter().map(|file| &file.path));
    let other = others.find(|other| file::overlap(other, path))?;
    Some(match other == path {
        true => format!("{path:?} is mounted already"),
        false => format!("{path:?} and {other:?} cannot both be mounted: one is below the other"),
    })
}

#[cfg(test)]
mod tests;
