//! Containers under the security modules of other hosts: AppArmor, as on Ubuntu, and SELinux. User-mode Linux has both, of which a
//! kernel runs one.

use std::time::Duration;

use tucano_testkit::{Need, needs, programs, tool};
use tucano_tests::images::workspace;

use crate::{
    guest::{GUEST, Guest},
    runtime::test_programs,
};

/// Docker's daemon starts slowly in a guest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs it; gives what it wrote.
fn run(guest: Guest) -> String {
    let guest = guest.word("runtime", programs().join("tucano_oci").display());
    let (exit, output) = guest.run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    output
}

/// What the script wrote behind a mark at the beginnings of lines.
fn lines<'a>(output: &'a str, mark: &str) -> Vec<&'a str> {
    let mark = format!("{mark}: ");
    let lines = output.lines();
    lines.filter_map(|line| line.strip_prefix(&mark)).collect()
}

#[test]
fn containers_are_confined_by_apparmor_profiles() {
    const NEEDS: [Need; 4] = [
        tool("apparmor_parser"),
        tool("jq"),
        tool("dockerd"),
        tool("ctr"),
    ];
    if !needs(&[&GUEST[..], &NEEDS].concat()) {
        return;
    }
    let [bundles] = test_programs(["bundles"]);
    let output = run(Guest::new("apparmor.sh")
        .word("security", "apparmor")
        .word("test_bundles", bundles.display())
        .word("directory", workspace().join("oci/runtime").display()));
    let said = |mark| lines(&output, mark);
    let denied = "sh: can't create /place/secret: Permission denied";
    for mark in ["sandbox", "plain"] {
        assert_eq!(
            said(mark),
            ["cell (enforce)", denied, "written"],
            "{output}"
        );
    }
    for (mark, profile) in [
        ("unconfined", "unconfined"),
        ("none", "unconfined"),
        ("hook", "cell (enforce)"),
        ("hostile", "cell (enforce)"),
        ("exec", "cell (enforce)"),
        ("exec --apparmor", "den (enforce)"),
        ("exec --process", "cell (enforce)"),
        ("outside", "untouched"),
    ] {
        assert_eq!(said(mark), [profile], "{mark}: {output}");
    }
    for mark in ["unknown", "exec unknown"] {
        let [error] = said(mark)[..] else {
            panic!("{mark}: {output}");
        };
        assert!(
            error.contains("no-such-profile") && error.contains("is not loaded"),
            "{error}"
        );
    }
    assert!(output.contains("test result: ok. 1 passed"), "{output}");
}

#[test]
fn containers_have_selinux_labels() {
    if !needs(&[&GUEST[..], &[tool("secilc"), tool("jq")]].concat()) {
        return;
    }
    let output = run(Guest::new("selinux.sh").word("security", "selinux"));
    let said = |mark| lines(&output, mark);
    let (process, file) = (
        "system_u:system_r:container_t:s0:c0,c1",
        "system_u:object_r:container_file_t:s0:c0,c1",
    );
    let denied = |path| format!("sh: can't create {path}: Permission denied");
    let labelled = said("labelled");
    // The root is not the runtime's to label. The session's key ring is the container's.
    assert_eq!(
        labelled[..4],
        [process, &denied("/place/file"), "written", "1"],
        "{output}"
    );
    let contexts = labelled[4..]
        .iter()
        .filter(|line| **line == format!("context=\"{file}"));
    assert!(contexts.count() >= 5, "{output}");
    let half = [process, &denied("/place/file"), &denied("/tmp/file"), "1"];
    assert_eq!(said("half"), half, "{output}");
    assert_eq!(said("queues"), [file], "{output}");
    assert_eq!(said("none"), ["system_u:system_r:kernel_t:s0"], "{output}");
    assert_eq!(said("exec"), [process], "{output}");
    let other = "system_u:system_r:container_t:s0:c2";
    assert_eq!(said("exec --process-label"), [other], "{output}");
    let inactive = said("inactive").concat();
    assert!(inactive.contains("SELinux is not active"), "{output}");
    for mark in ["unknown", "unknown mount"] {
        assert!(
            said(mark).concat().contains("no:such:label:s0"),
            "{mark}: {output}"
        );
    }
}
