//! Every shell script of the repository is checked, and a function of `provision.sh` alone.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use tucano_testkit::{needs, tool};
use tucano_tests::images::workspace;

#[test]
fn shellcheck_finds_nothing_in_any_script() {
    if !needs(&[tool("shellcheck")]) {
        return;
    }
    let mut scripts = Vec::new();
    collect(workspace(), &mut scripts);
    for known in [".ci/run", "vagrant/provision.sh", "vagrant/smoke.sh"] {
        assert!(scripts.contains(&workspace().join(known)), "{known}");
    }
    let output = Command::new("shellcheck")
        .args(["--external-sources", "--format=gcc"])
        .args(&scripts)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{output:?}");
}

/// `provision.sh` without its last line, which calls `main`.
fn provision(directory: &Path, commands: &str) -> std::process::Output {
    let script = fs::read_to_string(workspace().join("vagrant/provision.sh")).unwrap();
    let functions = script.trim_end().strip_suffix("main \"$@\"").unwrap();
    let script = format!("{functions}\nRECORDS={}\n{commands}", directory.display());
    Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn settings_that_were_added_by_hand_survive_another_provisioning() {
    if !needs(&[tool("bash"), tool("diff3")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    let put = || provision(directory.path(), "put_settings new ctl.toml ctl.service");
    let current = || fs::read_to_string(at("ctl.toml")).unwrap();

    write("new", "lease = \"6s\"\n\n[api]\nlisten = []\n");
    assert!(put().status.success());
    write(
        "ctl.toml",
        &current().replace("[api]", "[alerts]\nwebhooks = []\n\n[api]"),
    );
    let added = current();
    let again = put();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(
        (current(), String::from_utf8_lossy(&again.stdout).as_ref()),
        (added.clone(), "")
    );

    // A new worker is added at the end, where something was added by hand too.
    write("ctl.toml", &format!("{added}\n[limits]\nservices = 10\n"));
    let added = current();
    let more = "\n[[topology]]\nkind = \"worker\"\n";
    write(
        "new",
        &format!("{}{more}", fs::read_to_string(at("new")).unwrap()),
    );
    assert!(put().status.success());
    assert_eq!(current(), format!("{added}{more}"));

    // Both changed the same line: nothing is overwritten.
    let by_hand = current().replace("6s", "9s");
    write("ctl.toml", &by_hand);
    let new = fs::read_to_string(at("new")).unwrap();
    write("new", &new.replace("6s", "7s"));
    let conflict = put();
    assert!(!conflict.status.success());
    assert_eq!(current(), by_hand);
    assert!(
        String::from_utf8_lossy(&conflict.stderr).contains("ctl.toml.conflict"),
        "{conflict:?}"
    );
}

#[test]
fn a_file_of_which_there_is_no_record_is_copied_before_it_is_replaced() {
    if !needs(&[tool("bash")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("ctl.toml"), "# Written by provision.sh.\nadded = 1\n").unwrap();
    fs::write(at("new"), "lease = \"6s\"\n").unwrap();
    let output = provision(directory.path(), "put_settings new ctl.toml ctl.service");
    assert!(output.status.success(), "{output:?}");
    let read = |name| fs::read_to_string(at(name)).unwrap();
    assert_eq!(read("ctl.toml"), read("new"));
    assert!(read("ctl.toml.before-provision").contains("added = 1"));
}

/// Files whose first line names a shell.
fn collect(directory: &Path, scripts: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let is_ours = !["target", ".git", ".vagrant"]
            .iter()
            .any(|name| path.ends_with(name));
        if kind.is_dir() && is_ours {
            collect(&path, scripts);
        } else if kind.is_file() && names_a_shell(&path) {
            scripts.push(path);
        }
    }
}

fn names_a_shell(path: &Path) -> bool {
    let mut line = Vec::new();
    let read = BufReader::new(File::open(path).unwrap()).read_until(b'\n', &mut line);
    let line = String::from_utf8_lossy(&line);
    read.is_ok() && line.starts_with("#!") && line.trim_end().ends_with("sh")
}
