//! Checks a configuration before anything is applied, so that a container never gets half of what it asks for.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxNamespaceType as Kind, LinuxTimeOffset, Mount, Process, Spec,
};
use serde::Deserialize;
use serde_json::Value;

use crate::container::{
    labels,
    mounts::options::{Options, Propagation},
    namespaces::{joined_path, lists, namespaces},
    net_devices, scheduling,
};

/// Clocks that a time namespace can shift (time_namespaces(7)).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// Returns why the configuration cannot be applied. `text` is its JSON.
pub(super) fn check(spec: &Spec, text: &[u8]) -> Result<(), String> {
    let version = spec.version();
    if !version.starts_with("1.") {
        return Err(format!("ociVersion {version:?} is not supported: 1.x is"));
    }
    let unsupported: UnsupportedFields =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some(name) = unsupported.first_present() {
        return Err(format!("{name} is not supported by this runtime"));
    }
    if spec.linux().is_none() {
        return Err("there is no `linux` section".into());
    }
    if spec.root().is_none() {
        return Err("there is no `root`".into());
    }
    check_namespaces(spec)?;
    check_propagation(spec)?;
    scheduling::check_spec(spec)?;
    check_hooks(spec)?;
    labels::check_mounts(spec)?;
    net_devices::check(spec)?;
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    if seccomp.is_some_and(|all| all.listener_metadata().is_some() && all.listener_path().is_none())
    {
        return Err("linux.seccomp.listenerMetadata needs a listenerPath".into());
    }
    let mut mounts = spec.mounts().iter().flatten();
    mounts.try_for_each(|mount| check_mount(spec, mount))?;
    // A container without a process can be created but not started.
    spec.process().as_ref().map_or(Ok(()), check_process)
}

/// Fields that this runtime does not support. They must be absent, null, zero, false or empty.
#[derive(Deserialize)]
struct UnsupportedFields {
    solaris: Option<Value>,
    windows: Option<Value>,
    vm: Option<Value>,
    zos: Option<Value>,
    linux: Option<UnsupportedLinux>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnsupportedLinux {
    intel_rdt: Option<Value>,
    resources: Option<UnsupportedResources>,
}

#[derive(Deserialize)]
struct UnsupportedResources {
    #[serde(rename = "blockIO")]
    block_io: Option<UnsupportedBlockIo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnsupportedBlockIo {
    leaf_weight: Option<Value>,
}

impl UnsupportedFields {
    /// The name of the first field that is not empty.
    fn first_present(self) -> Option<&'static str> {
        let linux = self.linux.unwrap_or_default();
        let block_io = linux.resources.and_then(|resources| resources.block_io);
        let places = [
            ("solaris", self.solaris),
            ("windows", self.windows),
            ("vm", self.vm),
            ("zos", self.zos),
            ("linux.intelRdt", linux.intel_rdt),
            (
                "linux.resources.blockIO.leafWeight",
                block_io.and_then(|block_io| block_io.leaf_weight),
            ),
        ];
        let present = |(name, value): (_, Option<Value>)| (!is_empty(&value?)).then_some(name);
        places.into_iter().find_map(present)
    }
}

/// Checks a `process` object; also used by `exec`.
pub(super) fn check_process(process: &Process) -> Result<(), String> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err("process.args is empty: it names the program".into());
    }
    if !process.cwd().is_absolute() {
        return Err(format!(
            "process.cwd {:?} is not an absolute path",
            process.cwd()
        ));
    }
    labels::check_process(process)?;
    scheduling::check(process)?;
    let mut kinds = BTreeSet::new();
    let limits = process.rlimits().iter().flatten();
    for kind in limits.map(|limit| limit.typ().to_string()) {
        if !kinds.insert(kind.clone()) {
            return Err(format!("process.rlimits has {kind} twice"));
        }
    }
    Ok(())
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    Options::parse(mount).bind
}

/// Docker writes every limit, unset ones as empty values, so an object of empty values is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

fn check_namespaces(spec: &Spec) -> Result<(), String> {
    let mut kinds = BTreeSet::new();
    for namespace in namespaces(spec) {
        let kind = namespace.typ().to_string();
        let path = joined_path(spec, namespace.typ());
        if let Some(path) = path.filter(|path| !path.is_absolute()) {
            return Err(format!(
                "the path {} of the {kind} namespace is not absolute",
                path.display()
            ));
        }
        if !kinds.insert(kind.clone()) {
            return Err(format!("linux.namespaces has {kind} twice"));
        }
    }
    let linux = spec.linux().as_ref();
    let has_mappings = linux.is_some_and(|linux| {
        [linux.uid_mappings(), linux.gid_mappings()]
            .into_iter()
            .any(|list| list.iter().flatten().next().is_some())
    });
    if has_mappings && !lists(spec, Kind::User) {
        return Err("there are uidMappings or gidMappings but no user namespace".into());
    }
    let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
    check_clocks(spec, offsets.into_iter().flatten())?;
    let named = [
        ("hostname", spec.hostname()),
        ("domainname", spec.domainname()),
    ];
    for (field, name) in named {
        if !lists(spec, Kind::Uts) && name.as_ref().is_some_and(|name| !name.is_empty()) {
            return Err(format!(
                "a {field} needs a uts namespace, or it would be the host's"
            ));
        }
    }
    Ok(())
}

fn check_clocks<'a>(
    spec: &Spec,
    mut offsets: impl Iterator<Item = (&'a String, &'a LinuxTimeOffset)>,
) -> Result<(), String> {
    let is_new = lists(spec, Kind::Time) && joined_path(spec, Kind::Time).is_none();
    match offsets.find(|(clock, _)| !is_new || !CLOCKS.contains(&clock.as_str())) {
        Some((clock, _)) if is_new => Err(format!(
            "linux.timeOffsets names the clock {clock:?}: there are {}",
            CLOCKS.join(" and ")
        )),
        Some(_) => Err("linux.timeOffsets needs a new time namespace".into()),
        None => Ok(()),
    }
}

#[allow(deprecated, reason = "specifications still have prestart hooks")]
fn check_hooks(spec: &Spec) -> Result<(), String> {
    let Some(all) = spec.hooks() else {
        return Ok(());
    };
    let kinds = [
        all.prestart(),
        all.create_runtime(),
        all.create_container(),
        all.start_container(),
        all.poststart(),
        all.poststop(),
    ];
    for hook in kinds.into_iter().flatten().flatten() {
        let path = hook.path().display();
        if !hook.path().is_absolute() {
            return Err(format!("the path of the hook {path} is not absolute"));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return Err(format!("the timeout of the hook {path} is not above zero"));
        }
        let mut env = hook.env().iter().flatten();
        if let Some(entry) = env.find(|entry| !entry.contains('=')) {
            return Err(format!(
                "the hook {path} has {entry:?} in env, which is not of the form NAME=value"
            ));
        }
    }
    Ok(())
}

fn check_propagation(spec: &Spec) -> Result<(), String> {
    let propagation = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.rootfs_propagation().as_deref())
        .unwrap_or_default();
    if propagation.is_empty() || Propagation::of(propagation).is_some() {
        return Ok(());
    }
    Err(format!(
        "linux.rootfsPropagation {propagation:?} is not supported"
    ))
}

fn check_mount(spec: &Spec, mount: &Mount) -> Result<(), String> {
    let place = mount.destination().display();
    let options = Options::parse(mount);
    let refused = |option: &str, why: &str| {
        Err(format!(
            "the option {option:?} of the mount on {place} is not supported{why}"
        ))
    };
    if let Some((name, _)) = options.data.iter().find(|(name, _)| name == "copy-symlink") {
        return refused(name, "");
    }
    if options.copy_up && mount.typ().as_deref() != Some("tmpfs") {
        return refused("tmpcopyup", ": it is of type tmpfs only");
    }
    if options.id_map.is_none() {
        return Ok(());
    }
    let is_some = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().map(|list| !list.is_empty());
    match (is_some(mount.uid_mappings()), is_some(mount.gid_mappings())) {
        _ if !options.bind => refused("idmap", ": it is for bind mounts only"),
        (Some(true), Some(true)) => Ok(()),
        (None, None) if lists(spec, Kind::User) => Ok(()),
        (None, None) => refused("idmap", " without a user namespace or mappings of its own"),
        _ => Err(format!(
            "the mount on {place} needs both uidMappings and gidMappings, or neither"
        )),
    }
}

#[cfg(test)]
mod tests;
