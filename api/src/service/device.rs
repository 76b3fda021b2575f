//! Devices of the worker that the containers of a service have.
//!
//! Those that the node describes for containers (Container Device Interface) are asked for by their kind, `vendor.com/class`: so
//! many of them, whichever are free, or one by its name. Each is one process's at a time. A device node of the worker, `/dev/…`,
//! may be many processes' at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ServiceConfig, validate::length_problem};
use crate::{
    ids::{DeviceKind, DeviceName},
    settings::Problem,
};

/// Most entries of `devices`.
pub const MAX_DEVICES: usize = 64;
/// Most devices of a kind that one process can have by their number.
pub const MAX_COUNT: u32 = 64;
/// Longest path of a device node, in bytes.
const MAX_PATH_BYTES: usize = 4095;

/// One entry of `devices`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceRequest {
    /// The device of this name, as in `nvidia.com/gpu=all`.
    Named {
        /// Its kind.
        kind: DeviceKind,
        /// Its name, which is no number.
        name: DeviceName,
    },
    /// So many devices of a kind, as in `nvidia.com/gpu=1`.
    Any {
        /// Their kind.
        kind: DeviceKind,
        /// How many.
        count: u32,
    },
    /// A device node of the worker, such as `/dev/fuse`.
    Node(String),
}

/// The devices of a node: for each kind the names, and which devices each name stands for. A device stands for itself; further names of
/// it and names of several devices stand for it too.
pub type NodeDevices = BTreeMap<DeviceKind, BTreeMap<DeviceName, BTreeSet<DeviceName>>>;

/// A device that a process has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct AssignedDevice {
    /// Its kind.
    pub kind: DeviceKind,
    /// The name that its container gets it by.
    pub name: DeviceName,
    /// All names of the devices that it stands for, which no other process has meanwhile: which of them is the device's may change.
    #[schema(value_type = Vec<String>)]
    pub units: BTreeSet<DeviceName>,
}

impl AssignedDevice {
    /// What no other process may have at the same time.
    pub fn held(&self) -> impl Iterator<Item = (&DeviceKind, &DeviceName)> {
        self.units.iter().map(|unit| (&self.kind, unit))
    }
}

/// As CDI writes it: `nvidia.com/gpu=0`.
impl fmt::Display for AssignedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

impl DeviceRequest {
    /// The kind of a device that the node describes for containers.
    pub fn kind(&self) -> Option<&DeviceKind> {
        match self {
            Self::Named { kind, .. } | Self::Any { kind, .. } => Some(kind),
            Self::Node(_) => None,
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return node_problem(text).map_or_else(|| Ok(Self::Node(text.to_owned())), Err);
        }
        let Some((kind, which)) = text.split_once('=') else {
            return Err(format!(
                "{text:?} does not say how many: write for example \"{text}=1\", or a path such as \"/dev/fuse\""
            ));
        };
        let kind = kind.parse::<DeviceKind>().map_err(|it| it.to_string())?;
        if !which.bytes().all(|byte| byte.is_ascii_digit()) || which.is_empty() {
            let name = which.parse::<DeviceName>().map_err(|it| it.to_string())?;
            return Ok(Self::Named { kind, name });
        }
        match which.parse() {
            Ok(count @ 1..=MAX_COUNT) => Ok(Self::Any { kind, count }),
            _ => Err(format!(
                "{text:?} asks for {which} devices: a number says how many, from 1 to {MAX_COUNT}, and which ones are free the controller \
                 knows; a certain one is asked for by a name that is no number"
            )),
        }
    }
}

fn node_problem(path: &str) -> Option<String> {
    let is_below = path.strip_prefix("/dev/").is_some_and(|rest| {
        let mut parts = rest.split('/');
        !rest.is_empty() && parts.all(|part| !matches!(part, "" | "." | ".."))
    });
    let is_plain = !path.contains([':', '\0']) && path.len() <= MAX_PATH_BYTES;
    (!is_below || !is_plain).then(|| {
        format!("{path:?} is not a device node: write the path that it has on the worker and in the container, such as \"/dev/fuse\"")
    })
}

impl TryFrom<String> for DeviceRequest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceRequest> for String {
    fn from(request: DeviceRequest) -> Self {
        request.to_string()
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { kind, name } => write!(f, "{kind}={name}"),
            Self::Any { kind, count } => write!(f, "{kind}={count}"),
            Self::Node(path) => f.write_str(path),
        }
    }
}

impl ServiceConfig {
    /// The device nodes of the worker that its containers have.
    pub fn device_nodes(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().filter_map(|it| match it {
            DeviceRequest::Node(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Whether its processes have devices that are each one process's at a time.
    pub fn has_own_devices(&self) -> bool {
        self.devices.iter().any(|it| it.kind().is_some())
    }
}

/// What is wrong with the devices of a service by themselves.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let all = &config.devices;
    let mut problems: Vec<Problem> = length_problem("devices", "devices", all.len(), MAX_DEVICES)
        .into_iter()
        .collect();
    let is_same = |a: &DeviceRequest, b: &DeviceRequest| match (a, b) {
        (DeviceRequest::Any { kind: a, .. }, DeviceRequest::Any { kind: b, .. }) => a == b,
        (a, b) => a == b,
    };
    let twice =
        (0..all.len()).find(|index| all[..*index].iter().any(|it| is_same(it, &all[*index])));
    problems.extend(twice.map(|index| {
        let message = match &all[index] {
            DeviceRequest::Any { kind, .. } => {
                format!("asks for devices of {kind} twice: write how many in one entry")
            }
            other => format!("asks for {other} twice"),
        };
        Problem::new(format!("devices[{index}]"), message)
    }));
    problems
}

#[cfg(test)]
mod tests;
