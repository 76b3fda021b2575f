use super::*;
use crate::packages::PACKAGES;

/// Programs of Debian's essential and required packages: every Debian has them.
const ALWAYS_THERE: [&str; 7] = [
    "tar", "ldd", "timeout", "dpkg-deb", "apt-get", "sh", "mkfifo",
];

#[test]
fn needs_are_read_from_the_source() {
    let mut needs = Needs::default();
    needs.read("needs(&[ROOT, tool(\"nft\")]); programs().join(\"tucano_oci\")");
    assert!(needs.root);
    assert_eq!(needs.tools, ["nft".to_owned()].into());
    assert_eq!(needs.programs, ["tucano_oci".to_owned()].into());
    let mut none = Needs::default();
    none.read("const ROOTS: [&str; 1] = [\"tool\"];");
    assert_eq!(none, Needs::default());
}

#[test]
fn a_crate_without_privilege_needs_a_compiler_only() {
    for name in ["tucano_api", "tucano_planner", "tucano_oci_session"] {
        let needs = Needs::of_crate(name).unwrap();
        assert_eq!(needs, Needs::default(), "{name}");
        let packages = PACKAGES.iter().filter(|package| needs.includes(package));
        assert!(
            packages
                .clone()
                .all(|package| package.purpose == Purpose::Build)
        );
    }
    let agent = Needs::of_crate("tucano_agent").unwrap();
    assert!(agent.root && agent.tools.contains("nft"), "{agent:?}");
}

#[test]
fn an_unknown_crate_is_refused() {
    let error = Needs::of_crate("tucano_moon").unwrap_err().to_string();
    assert_eq!(error, "the workspace has no crate tucano_moon");
}

#[test]
fn every_tool_of_a_test_comes_with_a_package() {
    for (name, _) in members().unwrap() {
        if name == "tucano_testkit" || name == "xtask" {
            continue;
        }
        for tool in Needs::of_crate(&name).unwrap().tools {
            let is_listed = PACKAGES.iter().any(|package| package.brings(&tool));
            assert!(
                is_listed || ALWAYS_THERE.contains(&tool.as_str()),
                "tests of {name} need {tool}, which no package of xtask/src/packages.rs brings"
            );
        }
    }
}
