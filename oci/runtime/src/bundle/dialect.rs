//! Configurations that are valid but that oci-spec does not read, or that leave room for interpretation.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Arch, Capability, Process, Spec, User};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Flags of the scheduler by the specification's names and oci-spec's.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Sets of capabilities of a process.
const CAPABILITY_SETS: [&str; 5] = [
    "bounding",
    "effective",
    "inheritable",
    "permitted",
    "ambient",
];

/// Parses a configuration; adds to `warnings` what is ignored.
pub(super) fn spec(text: &[u8], warnings: &mut Vec<String>) -> serde_json::Result<Spec> {
    let mut spec: Spec = parse(text, |value| {
        if let Some(process) = value
            .get_mut("process")
            .filter(|process| process.is_object())
        {
            translate_process(process, warnings);
        }
        if let Some(list) = value.pointer_mut("/linux/seccomp/architectures") {
            // Filters are made for this machine's architecture; others may be newer than this program.
            retain(list, |name| from_name::<Arch>(name).is_some(), |_| {});
        }
    })?;
    clean_destinations(&mut spec, warnings);
    Ok(spec)
}

/// Parses a `process` object; adds to `warnings` what is ignored.
pub(super) fn process(text: &[u8], warnings: &mut Vec<String>) -> serde_json::Result<Process> {
    parse(text, |value| translate_process(value, warnings))
}

/// Most configurations need no translation, which takes time.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    translate: impl FnOnce(&mut Value),
) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| {
        let mut value: Value = serde_json::from_slice(text)?;
        translate(&mut value);
        // The first error says where in the file something is wrong.
        serde_json::from_value(value).map_err(|_| error)
    })
}

fn translate_process(process: &mut Value, warnings: &mut Vec<String>) {
    if process.get("user").is_none_or(Value::is_null) {
        process["user"] = json!(User::default());
    }
    let mut unknown = Vec::new();
    for set in CAPABILITY_SETS {
        if let Some(list) = process.pointer_mut(&format!("/capabilities/{set}")) {
            let is_known = |name: &str| from_name::<Capability>(name).is_some();
            retain(list, is_known, |name| unknown.push(name.to_owned()));
        }
    }
    unknown.sort();
    unknown.dedup();
    warnings.extend(
        (!unknown.is_empty())
            .then(|| format!("unknown capabilities are ignored: {}", unknown.join(", "))),
    );
    let flags = process.pointer_mut("/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = |(name, _): &&(&str, &str)| flag.as_str() == Some(*name);
        if let Some((_, translated)) = SCHEDULER_FLAGS.iter().find(known) {
            *flag = (*translated).into();
        }
    }
}

/// Keeps names that satisfy a condition; `removed` is called for the others.
fn retain(list: &mut Value, keep: impl Fn(&str) -> bool, mut removed: impl FnMut(&str)) {
    if let Some(list) = list.as_array_mut() {
        list.retain(|entry| match entry.as_str() {
            Some(name) if !keep(name) => {
                removed(name);
                false
            }
            _ => true,
        });
    }
}

fn from_name<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

/// A mount's destination is a path from the root, whatever it begins with: the specification asks for absolute paths,
/// and earlier versions of it did not.
fn clean_destinations(spec: &mut Spec, warnings: &mut Vec<String>) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let cleaned = cleaned(mount.destination());
        if !mount.destination().is_absolute() {
            let (wrong, right) = (mount.destination().display(), cleaned.display());
            warnings.push(format!(
                "the mount destination {wrong} is not absolute: it is {right}"
            ));
        }
        mount.set_destination(cleaned);
    }
}

/// The path from the root, without `.` and `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests;
