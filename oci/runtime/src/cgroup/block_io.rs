//! Limits of block devices (OCI runtime specification, "Block IO"): bandwidth, operations per second, and weights.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{Cgroup, Error, limits::required};

const LIMIT_NAME: &str = "the limits of block devices";

/// A file of the cgroup and a line to write. The kernel accepts one device per write.
type Line = (&'static str, String);

/// The v1 file of a limit, its key in v2's `io.max`, and the devices it applies to.
struct Throttle<'a> {
    file: &'static str,
    key: &'static str,
    devices: Option<&'a Vec<LinuxThrottleDevice>>,
}

/// Sets the limits that are present.
pub(super) fn set(cgroup: &Cgroup, io: &LinuxBlockIo) -> Result<(), Error> {
    let v2 = cgroup.is_unified();
    let directory = required(cgroup, "blkio")?;
    let lines = throttles(io).into_iter().flat_map(|throttle| {
        let devices = throttle.devices.into_iter().flatten();
        devices
            .map(move |device| throttle.line(device, v2))
            .collect::<Vec<_>>()
    });
    let weights = weights(io, directory)?;
    lines
        .chain(weights)
        .try_for_each(|(file, line)| write(directory, file, &line))
}

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    let throttle = |file, key, devices| Throttle { file, key, devices };
    [
        throttle(
            "blkio.throttle.read_bps_device",
            "rbps",
            io.throttle_read_bps_device().as_ref(),
        ),
        throttle(
            "blkio.throttle.write_bps_device",
            "wbps",
            io.throttle_write_bps_device().as_ref(),
        ),
        throttle(
            "blkio.throttle.read_iops_device",
            "riops",
            io.throttle_read_iops_device().as_ref(),
        ),
        throttle(
            "blkio.throttle.write_iops_device",
            "wiops",
            io.throttle_write_iops_device().as_ref(),
        ),
    ]
}

impl Throttle<'_> {
    /// A rate of 0 means unlimited.
    fn line(&self, device: &LinuxThrottleDevice, v2: bool) -> Line {
        let (major, minor, rate) = (device.major(), device.minor(), device.rate());
        match (v2, rate) {
            (false, rate) => (self.file, format!("{major}:{minor} {rate}")),
            (true, 0) => ("io.max", format!("{major}:{minor} {}=max", self.key)),
            (true, rate) => ("io.max", format!("{major}:{minor} {}={rate}", self.key)),
        }
    }
}

/// Files for weights, in order of preference. Most kernels have none: they come with the BFQ scheduler or a cost
/// model. The last field tells whether the file uses v2's scale (1..=10000) instead of the specification's
/// (10..=1000).
const WEIGHTS: [(&str, &str, bool); 4] = [
    ("blkio.bfq.weight", "blkio.bfq.weight_device", false),
    ("blkio.weight", "blkio.weight_device", false),
    ("io.bfq.weight", "io.bfq.weight", false),
    ("io.weight", "io.weight", true),
];

fn weights(io: &LinuxBlockIo, directory: &Path) -> Result<Vec<Line>, Error> {
    let general = io.weight().filter(|weight| *weight > 0);
    let devices = io.weight_device().iter().flatten();
    let devices: Vec<_> = devices
        .filter_map(|device| Some((device, device.weight().filter(|weight| *weight > 0)?)))
        .collect();
    if general.is_none() && devices.is_empty() {
        return Ok(Vec::new());
    }
    let there = |(file, _, _): &&(&str, _, _)| directory.join(file).exists();
    let (file, device_file, scaled) = WEIGHTS.iter().find(there).ok_or_else(|| Error::Limit {
        what: LIMIT_NAME,
        path: directory.to_owned(),
        reason: "this kernel has no weights for block devices (no file io.weight, io.bfq.weight or blkio.weight)".into(),
    })?;
    let value = |weight: u16| {
        if *scaled {
            scale(weight)
        } else {
            weight.into()
        }
    };
    let general = general.map(|weight| (*file, value(weight).to_string()));
    let devices = devices.into_iter().map(|(device, weight)| {
        let (major, minor) = (device.major(), device.minor());
        (*device_file, format!("{major}:{minor} {}", value(weight)))
    });
    Ok(general.into_iter().chain(devices).collect())
}

/// Converts a weight of the specification (10..=1000) to v2's scale (1..=10000).
fn scale(weight: u16) -> u32 {
    1 + (u32::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn write(directory: &Path, file: &str, line: &str) -> Result<(), Error> {
    let path = directory.join(file);
    fs::write(&path, line).map_err(|source| Error::Limit {
        what: LIMIT_NAME,
        path,
        reason: format!("{line:?}: {source}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> LinuxBlockIo {
        serde_json::from_value(serde_json::json!({
            "weight": 500,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 600}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}, {"major": 9, "minor": 1, "rate": 8}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 300}],
        }))
        .unwrap()
    }

    fn lines(v2: bool) -> Vec<Line> {
        let io = section();
        throttles(&io)
            .iter()
            .flat_map(|throttle| {
                throttle
                    .devices
                    .unwrap()
                    .iter()
                    .map(|device| throttle.line(device, v2))
            })
            .collect()
    }

    #[test]
    fn each_device_is_a_line() {
        let words: Vec<_> = lines(true)
            .into_iter()
            .map(|(file, line)| format!("{file} {line}"))
            .collect();
        assert_eq!(
            words,
            [
                "io.max 8:16 rbps=600",
                "io.max 8:0 wbps=max",
                "io.max 8:0 riops=7",
                "io.max 9:1 riops=8",
                "io.max 8:0 wiops=300"
            ]
        );
        let v1 = lines(false);
        assert_eq!(
            v1[0],
            ("blkio.throttle.read_bps_device", "8:16 600".to_owned())
        );
        assert_eq!(
            v1[1],
            ("blkio.throttle.write_bps_device", "8:0 0".to_owned())
        );
        assert_eq!(
            v1[3],
            ("blkio.throttle.read_iops_device", "9:1 8".to_owned())
        );
    }

    #[test]
    fn weights_use_the_files_and_scale_of_the_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let error = weights(&section(), directory.path()).unwrap_err();
        assert!(error.to_string().contains("io.weight"), "{error}");
        assert!(
            weights(&LinuxBlockIo::default(), directory.path())
                .unwrap()
                .is_empty()
        );
        fs::write(directory.path().join("io.weight"), "").unwrap();
        let own = weights(&section(), directory.path()).unwrap();
        assert_eq!(
            own,
            [
                ("io.weight", "4950".to_owned()),
                ("io.weight", "8:0 1".to_owned())
            ]
        );
        fs::write(directory.path().join("blkio.weight"), "").unwrap();
        let v1 = weights(&section(), directory.path()).unwrap();
        assert_eq!(
            v1,
            [
                ("blkio.weight", "500".to_owned()),
                ("blkio.weight_device", "8:0 10".to_owned())
            ]
        );
        assert_eq!(
            (scale(10), scale(1000), scale(u16::MAX)),
            (1, 10_000, 10_000)
        );
    }
}
