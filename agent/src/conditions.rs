//! Features of the kernel and its packages that this node is missing. They are detected at the agent's start, logged once, and
//! part of every report; the agent runs without them as far as it can.

use std::path::Path;

use tucano_oci_runtime::cgroup;

use crate::{cgroup_controllers, runner::execute::Executor, settings::Settings};

/// Detects and logs the node's conditions, one sentence each.
pub(crate) fn detect(executor: &Executor, settings: &Settings) -> Vec<String> {
    let conditions: Vec<_> = user_namespaces(executor.user_namespaces)
        .into_iter()
        .chain(executor.network.condition())
        .chain(volumes(executor.volumes.obstacle()))
        .chain(executor.backups.condition())
        .chain(cgroup_controllers::missing())
        .chain(device_filter(
            cgroup_controllers::is_unified(),
            cgroup::try_device_filter,
        ))
        .chain(settings.plaintext_warning())
        .chain(pressure(Path::new("/proc/pressure")))
        .collect();
    for condition in &conditions {
        tracing::warn!("{condition}");
    }
    conditions
}

fn user_namespaces(work: bool) -> Option<String> {
    let condition = "user namespaces with id-mapped layers do not work here: processes share the node's user ids";
    (!work).then(|| condition.to_owned())
}

fn volumes(obstacle: Option<&str>) -> Option<String> {
    obstacle.map(|obstacle| format!("services with volumes cannot run here: {obstacle}"))
}

/// On cgroup v1 the `devices` controller restricts devices. Processes lack the capability to create device nodes either way.
fn device_filter(unified: bool, probe: impl Fn() -> std::io::Result<()>) -> Option<String> {
    let error = unified.then(probe)?.err()?;
    Some(format!(
        "the kernel does not support device filters of cgroups ({error}): processes are restricted by missing capabilities only"
    ))
}

/// A kernel may have the files and refuse to read them: PSI is disabled unless it is booted with `psi=1`.
fn pressure(directory: &Path) -> Option<String> {
    let readable = std::fs::read(directory.join("cpu")).is_ok();
    let condition = "the kernel provides no pressure information (PSI)";
    (!readable).then(|| condition.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_filter_is_a_condition_on_cgroup_v2_only() {
        let refused = || Err(std::io::ErrorKind::Unsupported.into());
        let condition = device_filter(true, refused).unwrap();
        assert!(condition.contains("(unsupported)"), "{condition}");
        assert_eq!(device_filter(true, || Ok(())), None);
        assert_eq!(device_filter(false, refused), None);
    }

    #[test]
    fn unreadable_pressure_files_are_a_condition() {
        let directory = tempfile::tempdir().unwrap();
        assert!(pressure(directory.path()).unwrap().contains("(PSI)"));
        std::fs::write(directory.path().join("cpu"), "some avg10=0.00").unwrap();
        assert_eq!(pressure(directory.path()), None);
        assert!(user_namespaces(false).is_some() && user_namespaces(true).is_none());
    }
}
