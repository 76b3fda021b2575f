//! Paths in a container at which something is mounted for a service: its files, mounts, volumes and secrets.

use super::ServiceConfig;
use crate::settings::Problem;

/// Longest path, in bytes: Linux's PATH_MAX without its NUL.
const MAX_PATH_BYTES: usize = 4095;
/// What the runtime mounts itself, and what lies below.
const MOUNTED: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Files that the agent writes for each process.
const WRITTEN: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// One of these paths.
struct Target<'a> {
    /// Where it stands in the configuration, such as `file[0].path`.
    key: String,
    path: String,
    /// What is at the path, in words.
    what: &'a str,
}

/// What is wrong with the paths of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let targets = all(config);
    let mut problems = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let problem = path_problem(target)
            .or_else(|| conflict(target, &targets[..index]))
            .or_else(|| conflict_with_tmp(config, target));
        problems.extend(problem.map(|message| Problem::new(target.key.clone(), message)));
    }
    problems
}

fn all(config: &ServiceConfig) -> Vec<Target<'_>> {
    let target = |list: &str, index: usize, path: String, what: &'static str| Target {
        key: format!("{list}[{index}].path"),
        path,
        what,
    };
    let files = config.file.iter().enumerate();
    let files = files.map(|(index, it)| target("file", index, it.path.clone(), "a file"));
    let secrets = config.secret.iter().enumerate();
    let secrets =
        secrets.filter_map(|(index, it)| Some(target("secret", index, it.path()?, "a file")));
    let mounts = config.mount.iter().enumerate();
    let mounts = mounts.map(|(index, it)| target("mount", index, it.path.clone(), "a directory"));
    let volumes = config.volume.iter().enumerate();
    let volumes =
        volumes.map(|(index, it)| target("volume", index, it.path.clone(), "a directory"));
    files.chain(secrets).chain(mounts).chain(volumes).collect()
}

/// Why nothing can be mounted at a path.
fn path_problem(target: &Target<'_>) -> Option<String> {
    let Target { path, what, .. } = target;
    if !is_plain(path) {
        return Some(format!(
            "{path:?} is not the path of {what}: write an absolute one without `.`, `..` and doubled or final slashes"
        ));
    }
    if path.len() > MAX_PATH_BYTES {
        return Some(format!("a path has at most {MAX_PATH_BYTES} bytes"));
    }
    if let Some(mounted) = MOUNTED.iter().find(|mounted| is_at_or_below(path, mounted)) {
        return Some(format!(
            "{path:?} is below {mounted}, which every container has mounted: write another path"
        ));
    }
    WRITTEN
        .contains(&path.as_str())
        .then(|| format!("{path:?} is written for every process by its agent: write another path"))
}

/// Why it cannot be where it is: something else is at its path, above or below.
fn conflict(target: &Target<'_>, others: &[Target<'_>]) -> Option<String> {
    let path = &target.path;
    let other = others.iter().find(|other| overlap(&other.path, path))?;
    let owner = other.key.trim_end_matches(".path");
    Some(match other.path == *path {
        true => format!("{path:?} is the path of {owner} already"),
        false => format!(
            "{path:?} and {:?}, the path of {owner}, cannot both be mounted: one is below the other",
            other.path
        ),
    })
}

/// Files may be mounted over the tmpfs on `/tmp`; directories would hide it, or be hidden.
fn conflict_with_tmp(config: &ServiceConfig, target: &Target<'_>) -> Option<String> {
    let conflicts =
        config.read_only && target.what == "a directory" && overlap(&target.path, "/tmp");
    conflicts
        .then(|| "with `read_only` a tmpfs is on /tmp already: `tmp_size` sets its size".to_owned())
}

/// Whether a path is absolute, has neither `.` nor `..`, and is written in one way only.
pub(super) fn is_plain(path: &str) -> bool {
    let mut components = path.split('/').skip(1);
    path.starts_with('/')
        && !path.contains('\0')
        && components.all(|component| !["", ".", ".."].contains(&component))
}

/// Whether one path is the other, or below it.
fn overlap(a: &str, b: &str) -> bool {
    is_at_or_below(a, b) || is_at_or_below(b, a)
}

/// Whether a path is `directory`, or below it.
pub fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
