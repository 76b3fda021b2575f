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
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn cpu(text: &str) -> LinuxCpu {
        serde_json::from_str(text).unwrap()
    }

    fn joined(writes: &[(&str, String)]) -> Vec<String> {
        let join = |(name, value): &(&str, String)| format!("{name}={value}");
        writes.iter().map(join).collect()
    }

    #[test]
    fn v2_keeps_the_other_of_quota_and_period() {
        let of = |text: &str| joined(&unified(&cpu(text), "5000 20000\n"));
        assert_eq!(of(r#"{"quota":3000}"#), ["cpu.max=3000 20000"]);
        assert_eq!(of(r#"{"period":10000}"#), ["cpu.max=5000 10000"]);
        assert_eq!(
            of(r#"{"quota":-1,"burst":0}"#),
            ["cpu.max=max 20000", "cpu.max.burst=0"]
        );
        assert!(of(r#"{"quota":0,"period":0}"#).is_empty());
    }

    #[test]
    fn v1_has_a_file_for_each() {
        let of = |text: &str| joined(&per_controller(&cpu(text)));
        let all = of(r#"{"quota":3000,"period":10000,"burst":0}"#);
        let expected = [
            "cpu.cfs_period_us=10000",
            "cpu.cfs_quota_us=3000",
            "cpu.cfs_burst_us=0",
        ];
        assert_eq!(all, expected);
    }

    /// A parent with half a CPU: 20 ms of 100 ms become 3 ms of 10 ms, and the period alone would be too much.
    #[test]
    fn a_write_that_is_refused_is_tried_again_after_the_others() {
        let state = RefCell::new([20_000, 100_000]);
        let write = |file: &Path, value: &str| {
            let mut wanted = *state.borrow();
            let index = usize::from(file.ends_with("cpu.cfs_period_us"));
            wanted[index] = value.parse().unwrap();
            if wanted[0] * 2 > wanted[1] {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            *state.borrow_mut() = wanted;
            Ok(())
        };
        let writes = |text: &str| -> Vec<Write> {
            let all = per_controller(&cpu(text)).into_iter();
            all.map(|(name, value)| (name.into(), value)).collect()
        };
        write_in_any_order(writes(r#"{"quota":3000,"period":10000}"#), &write).unwrap();
        assert_eq!(*state.borrow(), [3000, 10_000]);
        write_in_any_order(writes(r#"{"quota":40000,"period":100000}"#), &write).unwrap();
        assert_eq!(*state.borrow(), [40_000, 100_000]);
        let error = write_in_any_order(writes(r#"{"quota":60000}"#), &write).unwrap_err();
        assert_eq!(error.1, "60000");
    }
}
