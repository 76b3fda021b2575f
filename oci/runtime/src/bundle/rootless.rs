//! The default configuration for callers without privileges, as runc's `spec --rootless` has it.

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

/// Changes a configuration: a user namespace in which the caller is root, the host's network, and nothing that takes
/// privileges over the host.
pub(super) fn adapt(spec: &mut Value) {
    let mapping = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = mapping(geteuid().as_raw());
    linux["gidMappings"] = mapping(getegid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    if let Some(fields) = linux.as_object_mut() {
        fields.remove("resources");
        fields.remove("sysctl");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        match mount["destination"].as_str() {
            // A sysfs shows a network namespace, which the host's is not the caller's to show.
            Some("/sys") => {
                *mount = json!({
                    "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
                });
            }
            // The group of terminals is not mapped.
            Some("/dev/pts") => {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bundle, write_default};

    #[test]
    fn a_rootless_configuration_maps_the_callers_ids() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("rootfs")).unwrap();
        write_default(directory.path(), true).unwrap();
        let spec = Bundle::load(directory.path()).unwrap().spec;
        let linux = spec.linux().as_ref().unwrap();
        let mappings = linux.uid_mappings().as_ref().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((mappings[0].host_id(), mappings[0].size()), (own, 1));
        let kinds = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|one| one.typ().to_string());
        let kinds: Vec<_> = kinds.collect();
        assert!(kinds.contains(&"user".to_owned()) && !kinds.contains(&"network".to_owned()));
        assert!(linux.resources().is_none());
        let text = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
        assert!(!text.contains("gid=5") && text.contains("rbind"));
    }
}
