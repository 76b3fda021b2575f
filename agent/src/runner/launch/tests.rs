use std::os::unix::fs::MetadataExt;

use tucano_api::settings::parse;

use super::*;

#[test]
fn a_container_joins_the_given_network_namespace() {
    let mut spec = Sandbox::default().spec().unwrap();
    let namespace = std::fs::File::open("/proc/self/ns/net").unwrap();
    join(&mut spec, &namespace);
    let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    let joined: Vec<_> = all
        .iter()
        .filter_map(|one| Some((one.typ(), one.path().as_ref()?.metadata().ok()?.ino())))
        .collect();
    let inode = namespace.metadata().unwrap().ino();
    assert_eq!(joined, [(LinuxNamespaceType::Network, inode)]);
}

#[test]
fn capabilities_over_the_node_are_refused() {
    let config = |more: &str| -> ServiceConfig {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
        parse("a", &text).unwrap()
    };
    let asking = config("caps = [\"KILL\", \"CHOWN\"]");
    assert_eq!(capabilities(&asking, true).unwrap(), ["CHOWN", "KILL"]);
    let refused = capabilities(&asking, false).unwrap_err().to_string();
    assert!(refused.contains("(CHOWN,KILL)"), "{refused}");
    assert!(
        refused.contains("caps_without_user_namespaces"),
        "{refused}"
    );
    assert!(capabilities(&config(""), false).unwrap().is_empty());
}
