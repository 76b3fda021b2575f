//! What this node's kernel and packages lack that processes would profit from: found at the agent's start, logged then, once,
//! and told the controller in every report. The agent works without it as far as it can.

use std::path::Path;

use tucano_oci_runtime::cgroup;

use crate::{controllers, runner::execute::Executor, settings::Settings};

/// A sentence for each; logs them.
pub(crate) fn told(executor: &Executor, settings: &Settings) -> Vec<String> {
    let notes: Vec<_> = user_namespaces(executor.user_namespaces)
        .into_iter()
        .chain(executor.network.lacking())
        .chain(controllers::lacking())
        .chain(device_filter(
            controllers::is_unified(),
            cgroup::try_device_filter,
        ))
        .chain(settings.plain_wire())
        .chain(pressure(Path::new("/proc/pressure")))
        .collect();
    for note in &notes {
        tracing::warn!("{note}");
    }
    notes
}

fn user_namespaces(work: bool) -> Option<String> {
    let note = "user namespaces with id-mapped layers do not work here: processes share the node's user ids";
    (!work).then(|| note.to_owned())
}

/// On v1 a controller does it. What processes have no right to make, they cannot use either way.
fn device_filter(unified: bool, try_out: impl Fn() -> std::io::Result<()>) -> Option<String> {
    let error = unified.then(try_out)?.err()?;
    Some(format!(
        "the kernel has no device rules for cgroups ({error}): processes are kept from devices by their lack of rights alone"
    ))
}

/// A kernel may have it and refuse to read it: started without `psi=1`, where its packager wants that.
fn pressure(directory: &Path) -> Option<String> {
    let readable = std::fs::read(directory.join("cpu")).is_ok();
    let note = "the kernel gives no pressure information (PSI)";
    (!readable).then(|| note.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_missed_on_v2_alone_and_with_the_reason() {
        let refused = || Err(std::io::ErrorKind::Unsupported.into());
        let note = device_filter(true, refused).unwrap();
        assert!(note.contains("(unsupported)"), "{note}");
        assert_eq!(device_filter(true, || Ok(())), None);
        assert_eq!(device_filter(false, refused), None);
    }

    #[test]
    fn pressure_is_there_once_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(pressure(directory.path()).unwrap().contains("(PSI)"));
        std::fs::write(directory.path().join("cpu"), "some avg10=0.00").unwrap();
        assert_eq!(pressure(directory.path()), None);
        assert!(user_namespaces(false).is_some() && user_namespaces(true).is_none());
    }
}
