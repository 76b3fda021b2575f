//! A confined program can work in its directory, and do nothing else; without the confinement it could.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use tucano_testkit::{ROOT, needs};

const NEEDED: [&str; 9] = [
    "write",
    "read",
    "directory",
    "list",
    "owner",
    "device",
    "mark",
    "thread",
    "remove",
];

const DENIED: [&str; 13] = [
    "elsewhere",
    "above",
    "host",
    "processes",
    "open-device",
    "execute",
    "socket",
    "signal",
    "mount",
    "namespace",
    "memory",
    "become",
    "root",
];

/// What the program says of each thing that it tries, in a directory beside a file `elsewhere`.
fn outcomes(manner: &str) -> BTreeMap<String, String> {
    let place = tempfile::tempdir().unwrap();
    let (own, elsewhere) = (place.path().join("own"), place.path().join("elsewhere"));
    fs::create_dir(&own).unwrap();
    fs::write(&elsewhere, "secret").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_tucano_oci_confined"));
    fs::copy(program, own.join("program")).unwrap();
    let output = Command::new(program)
        .args([manner.as_ref(), own.as_os_str(), elsewhere.as_os_str()])
        .arg("./program")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(what, outcome)| (what.to_owned(), outcome.to_owned()))
        .collect()
}

#[test]
fn only_its_directory_is_accessible() {
    if !needs(&[ROOT]) {
        return;
    }
    let confined = outcomes("confined");
    for what in NEEDED {
        assert_eq!(confined[what], "done", "{what}");
    }
    for what in DENIED {
        assert_eq!(confined[what], "denied", "{what}");
    }
    assert_eq!(confined.len(), NEEDED.len() + DENIED.len());
}

#[test]
fn the_unconfined_program_can_do_all_of_that() {
    if !needs(&[ROOT]) {
        return;
    }
    let free = outcomes("free");
    for what in NEEDED
        .iter()
        .chain(&DENIED)
        .filter(|what| **what != "memory")
    {
        assert_eq!(free[*what], "done", "{what}");
    }
}
