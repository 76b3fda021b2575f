//! Every shell script of the repository is looked through.

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
