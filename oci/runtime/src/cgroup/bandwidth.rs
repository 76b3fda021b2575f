//! The CPU bandwidth of a cgroup: period, quota and burst, which the kernel checks against each other and against those of
//! the cgroups above and below at each write.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxCpu;

use super::Error;

/// A value for a file.
type Write = (PathBuf, String);

/// Sets what is present. Zero is no period and no quota, as callers write that do not set one.
pub(super) fn set(directory: &Path, cpu: &LinuxCpu, v2: bool) -> Result<(), Error> {
    let current = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let writes = if v2 {
        unified(cpu, &current("cpu.max"))
    } else {
        per_controller(cpu)
    };
    let writes = writes
        .into_iter()
        .map(|(name, value)| (directory.join(name), value))
        // No burst is what kernels without bursts have.
        .filter(|(file, value)| value != "0" || file.exists())
        .collect();
    write_in_any_order(writes, &|file, value| fs::write(file, value)).map_err(
        |(file, value, source)| Error::Limit {
            what: "the share of the CPU",
            reason: format!("{value:?}: {source}"),
            path: file,
        },
    )
}

/// v1 has a file for each of them.
fn per_controller(cpu: &LinuxCpu) -> Vec<(&'static str, String)> {
    let period = cpu.period().filter(|period| *period != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    [
        ("cpu.cfs_period_us", period.map(|period| period.to_string())),
        ("cpu.cfs_quota_us", quota.map(|quota| quota.to_string())),
        (
            "cpu.cfs_burst_us",
            cpu.burst().map(|burst| burst.to_string()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// v2 has quota and period in one file, which keeps neither for itself.
fn unified(cpu: &LinuxCpu, current: &str) -> Vec<(&'static str, String)> {
    let period = cpu.period().filter(|period| *period != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let mut writes = Vec::new();
    if period.is_some() || quota.is_some() {
        let mut words = current.split_whitespace();
        let current_quota = words.next().unwrap_or("max");
        let quota = match quota {
            Some(..0) => "max".to_owned(),
            Some(quota) => quota.to_string(),
            None => current_quota.to_owned(),
        };
        let period = period.map(|period| period.to_string());
        let period = period.or_else(|| words.next().map(str::to_owned));
        let value = [Some(quota), period]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        writes.push(("cpu.max", value.join(" ")));
    }
    writes.extend(
        cpu.burst()
            .map(|burst| ("cpu.max.burst", burst.to_string())),
    );
    writes
}

/// Whichever is refused for what another still is, is tried again after that.
fn write_in_any_order(
    mut writes: Vec<Write>,
    write: &dyn Fn(&Path, &str) -> io::Result<()>,
) -> Result<(), (PathBuf, String, io::Error)> {
    loop {
        let before = writes.len();
        let mut refused = None;
        writes.retain(|(file, value)| match write(file, value) {
            Ok(()) => false,
            Err(source) => {
                refused = Some((file.clone(), value.clone(), source));
                true
            }
        });
        match refused {
            None => return Ok(()),
            Some(_) if writes.len() < before => {}
            Some(refused) => return Err(refused),
        }
    }
}

#[cfg(test)]
mod tests;
