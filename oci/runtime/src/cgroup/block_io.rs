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
mod tests;
