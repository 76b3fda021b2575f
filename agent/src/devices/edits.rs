//! What descriptions change in the specification of a container.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, Mount as OciMount, Spec};
use rustix::fs::{major, minor};
use serde_json::json;

use super::{
    Refused,
    spec::{ContainerEdits, DeviceNode, Mount},
};

/// Highest id that a container has.
const MAX_ID: u32 = 65_535;
/// Of device nodes whose description does not tell: which container has the device is what is restricted.
const MODE: u32 = 0o666;

/// Whether a path is a device node.
pub(super) fn is_device(path: &Path) -> bool {
    kind_of(path).is_ok_and(|found| found.is_some())
}

/// Type and numbers of a device node; `None` if it is something else.
fn kind_of(path: &Path) -> std::io::Result<Option<(&'static str, u32, u32)>> {
    let found = fs::metadata(path)?;
    let kind = match found.file_type() {
        it if it.is_char_device() => "c",
        it if it.is_block_device() => "b",
        _ => return Ok(None),
    };
    Ok(Some((kind, major(found.rdev()), minor(found.rdev()))))
}

/// Changes a specification. Each with what it is called in messages; the same ones of several devices are made once.
pub(super) fn apply(all: &[(String, ContainerEdits)], spec: &mut Spec) -> Result<(), Refused> {
    let mut done: Vec<&ContainerEdits> = Vec::new();
    for (device, edits) in all {
        if done.contains(&edits) {
            continue;
        }
        done.push(edits);
        apply_one(edits, spec).map_err(|problem| Refused::Unusable {
            device: device.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn apply_one(edits: &ContainerEdits, spec: &mut Spec) -> Result<(), String> {
    set_env(&edits.env, spec);
    for node in &edits.device_nodes {
        add_node(node, spec)?;
    }
    for mount in &edits.mounts {
        add_mount(mount, spec)?;
    }
    add_groups(&edits.additional_gids, spec)
}

/// A variable of a device wins over one of the image or the service.
fn set_env(variables: &[String], spec: &mut Spec) {
    let Some(process) = spec.process_mut() else {
        return;
    };
    let mut all = process.env().clone().unwrap_or_default();
    for variable in variables {
        let name = variable.split_inclusive('=').next().unwrap_or_default();
        all.retain(|it| !it.starts_with(name));
        all.push(variable.clone());
    }
    process.set_env(Some(all));
}

fn add_node(node: &DeviceNode, spec: &mut Spec) -> Result<(), String> {
    let path = node.on_node();
    let found = kind_of(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let (kind, major, minor) = found.ok_or_else(|| format!("{path} is no device node"))?;
    let is_other = |told: Option<u32>, found| told.is_some_and(|told| told != found);
    let told_kind = node.kind.as_deref().filter(|it| !it.is_empty());
    let told_kind = told_kind.map(|it| if it == "u" { "c" } else { it });
    // Descriptions of the time before numbers were left out have 0 for them.
    let is_told = node.major.is_some_and(|it| it > 0);
    if told_kind.is_some_and(|told| told != kind)
        || is_told && (is_other(node.major, major) || is_other(node.minor, minor))
    {
        return Err(format!(
            "{path} is {kind} {major}:{minor} and is described as another device: write the description anew"
        ));
    }
    let wrong = |error: serde_json::Error| format!("{path}: {error}");
    let device = json!({
        "path": node.path, "type": kind, "major": major, "minor": minor,
        "fileMode": node.file_mode.map_or(MODE, |mode| mode & 0o7777),
        "uid": node.uid.unwrap_or(0), "gid": node.gid.unwrap_or(0),
    });
    let device: LinuxDevice = serde_json::from_value(device).map_err(wrong)?;
    let access = match node.permissions.as_deref() {
        None | Some("") => "rwm",
        Some("none") => "",
        Some(given) => given,
    };
    let rule = json!({
        "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
    });
    let rule: LinuxDeviceCgroup = serde_json::from_value(rule).map_err(wrong)?;
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|it| it.path() != device.path());
    devices.push(device);
    linux.set_devices(Some(devices));
    if access.is_empty() {
        return Ok(());
    }
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.push(rule);
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    Ok(())
}

fn add_mount(mount: &Mount, spec: &mut Spec) -> Result<(), String> {
    let mut options = mount.options.clone();
    let kind = mount
        .kind
        .as_deref()
        .filter(|it| !matches!(*it, "" | "none"));
    let is_bind = kind.is_none_or(|it| it == "bind");
    if is_bind {
        let source = &mount.host_path;
        fs::symlink_metadata(source).map_err(|error| format!("{source}: {error}"))?;
        if !options.iter().any(|it| it == "bind" || it == "rbind") {
            options.push("bind".to_owned());
        }
    }
    if !options.iter().any(|it| it == "nosuid" || it == "suid") {
        options.push("nosuid".to_owned());
    }
    let mount = json!({
        "destination": mount.container_path, "source": mount.host_path,
        "type": kind.unwrap_or("bind"), "options": options,
    });
    let mount: OciMount = serde_json::from_value(mount).map_err(|error| error.to_string())?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|it| it.destination() != mount.destination());
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn add_groups(groups: &[u32], spec: &mut Spec) -> Result<(), String> {
    let wanted = groups.iter().copied().filter(|gid| *gid != 0);
    let wanted: Vec<u32> = wanted.collect();
    if let Some(gid) = wanted.iter().find(|gid| **gid > MAX_ID) {
        return Err(format!(
            "containers have no group {gid}: their ids end at {MAX_ID}"
        ));
    }
    let Some(process) = spec.process_mut().as_mut().filter(|_| !wanted.is_empty()) else {
        return Ok(());
    };
    let mut user = process.user().clone();
    let mut all = user.additional_gids().clone().unwrap_or_default();
    all.extend(wanted);
    all.sort_unstable();
    all.dedup();
    user.set_additional_gids(Some(all));
    process.set_user(user);
    Ok(())
}
