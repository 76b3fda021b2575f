//! A description of devices, as the Container Device Interface defines it (its SPEC.md, version 0.8).
//!
//! Types of our own: the crate for it brings a second library for cryptography. What is not known here is refused, not passed over: a device
//! without a part of its description may do harm.

use std::collections::BTreeMap;

use serde::Deserialize;
use tucano_api::ids::{DeviceKind, DeviceName};

/// A file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Description {
    /// The version of the specification.
    pub(super) cdi_version: String,
    pub(super) kind: DeviceKind,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// What every container with any of the devices gets.
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: DeviceName,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    /// Programs that are run at points of the container's life.
    hooks: Vec<serde_json::Value>,
    #[serde(alias = "additionalGIDs")]
    pub(super) additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    /// In the container.
    pub(super) path: String,
    /// On the node, where it is another one.
    #[serde(default)]
    pub(super) host_path: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) major: Option<u32>,
    #[serde(default)]
    pub(super) minor: Option<u32>,
    #[serde(default)]
    pub(super) file_mode: Option<u32>,
    /// Of `rwm`, or `none`.
    #[serde(default)]
    pub(super) permissions: Option<String>,
    #[serde(default)]
    pub(super) uid: Option<u32>,
    #[serde(default)]
    pub(super) gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

impl ContainerEdits {
    /// A device node of the node, under the same path.
    pub(super) fn of_node(path: &str) -> Self {
        Self {
            device_nodes: vec![DeviceNode {
                path: path.to_owned(),
                permissions: Some("rw".to_owned()),
                ..DeviceNode::default()
            }],
            ..Self::default()
        }
    }

    fn problem(&self) -> Option<String> {
        let is_variable = |it: &&String| it.find('=').is_none_or(|at| at == 0);
        if let Some(wrong) = self.env.iter().find(is_variable) {
            return Some(format!("{wrong:?} is no variable"));
        }
        self.device_nodes
            .iter()
            .find_map(DeviceNode::problem)
            .or_else(|| self.mounts.iter().find_map(Mount::problem))
            .or_else(|| {
                let message = "it has hooks, which agents do not run: have it written without them";
                (!self.hooks.is_empty()).then(|| message.to_owned())
            })
    }
}

impl DeviceNode {
    /// Where it is on the node.
    pub(super) fn on_node(&self) -> &str {
        let own = self.host_path.as_deref().filter(|path| !path.is_empty());
        own.unwrap_or(&self.path)
    }

    fn problem(&self) -> Option<String> {
        let path = &self.path;
        let permissions = self.permissions.as_deref().unwrap_or_default();
        if !path.starts_with('/') || !self.on_node().starts_with('/') {
            return Some(format!("the device node {path:?} is not an absolute path"));
        }
        if permissions != "none" && permissions.chars().any(|it| !"rwm".contains(it)) {
            return Some(format!(
                "{path} has the permissions {permissions:?}: they are of rwm"
            ));
        }
        let kind = self.kind.as_deref().unwrap_or_default();
        (!["", "b", "c", "u"].contains(&kind))
            .then(|| format!("{path} has the type {kind:?}: agents know b, c and u"))
    }
}

impl Mount {
    fn problem(&self) -> Option<String> {
        let paths = [&self.host_path, &self.container_path];
        let wrong = paths.into_iter().find(|path| !path.starts_with('/'))?;
        Some(format!("{wrong:?} of a mount is not an absolute path"))
    }
}

impl Description {
    /// Reads a description, as JSON or YAML by its file's name.
    ///
    /// # Errors
    /// What is wrong, in words for a person.
    pub(super) fn parse(text: &str, is_json: bool) -> Result<Self, String> {
        let description: Self = match is_json {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => {
                let value = super::yaml::parse(text)?;
                serde_json::from_value(value).map_err(|error| error.to_string())?
            }
        };
        let version = &description.cdi_version;
        let mut parts = version.trim_start_matches('v').split('.');
        // Earlier ones had other names for the same things.
        let is_known = match (parts.next(), parts.next().map(str::parse::<u32>)) {
            (Some("0"), Some(Ok(minor))) => minor >= 3,
            (Some("1"), Some(Ok(_))) => true,
            _ => false,
        };
        if !is_known {
            return Err(format!(
                "cdiVersion {version:?} is not known: agents know 0.3 and later"
            ));
        }
        let own = description.devices.iter().map(|it| &it.container_edits);
        let problem = own
            .chain([&description.container_edits])
            .find_map(ContainerEdits::problem);
        match problem {
            Some(problem) => Err(problem),
            None => Ok(description),
        }
    }
}
