//! The corpus beside other tools.

use std::{path::Path, process::Command};

use tucano_testkit::{ROOT, needs, tool};

use crate::kit::Case;

/// Runs a shell script in a directory; its messages if it fails.
fn run(directory: &Path, script: &str) -> Result<(), String> {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What a tool accepts must be accepted here, unless the case says why not.
fn compare(cases: Vec<Case>, tool: &str, script: impl Fn(&Case) -> String) {
    let mut wrong = Vec::new();
    for case in cases {
        let directory = tempfile::tempdir().unwrap();
        case.layout()
            .write_directory(&directory.path().join("layout"))
            .unwrap();
        let accepts = run(directory.path(), &script(&case));
        println!(
            "{}: {tool} {}, here {}",
            case.name,
            accepts
                .as_ref()
                .map_or_else(|error| error.trim(), |()| "accepts"),
            if case.is_accepted() {
                "accepted"
            } else {
                "refused"
            }
        );
        if accepts.is_ok() && !case.is_accepted() && case.because.is_none() {
            wrong.push(case.name);
        }
    }
    assert!(wrong.is_empty(), "{tool} accepts {wrong:?}");
}

pub(crate) fn compare_with_umoci(cases: Vec<Case>) {
    if needs(&[ROOT, tool("umoci")]) {
        compare(cases, "umoci", |_| {
            "umoci unpack --image layout:odd bundle".to_owned()
        });
    }
}

/// Podman's own store is in the test's directory, and no container is run.
pub(crate) fn compare_with_podman(cases: Vec<Case>) {
    if needs(&[ROOT, tool("podman")]) {
        compare(cases, "podman", |_| {
            "podman --root $PWD/root --runroot $PWD/run --tmpdir $PWD/tmp --storage-driver vfs \
             pull --quiet oci:layout:odd"
                .to_owned()
        });
    }
}
