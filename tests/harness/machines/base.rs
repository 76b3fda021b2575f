//! The disk that every machine begins with: made once for each recipe, whichever test comes first.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::images::workspace;

/// Packages come from servers that may be busy.
const ATTEMPTS: usize = 3;

/// The disk's file, which is to be left as it is.
pub(super) fn disk() -> PathBuf {
    let directory = workspace().join("target/machines");
    fs::create_dir_all(&directory).expect("a directory");
    let lock = File::create(directory.join("lock")).expect("a lock");
    // Tests run at once, of several programs too; the lock goes with its file.
    lock.lock().expect("a lock");
    let disk = directory.join(format!("base-{:016x}.ext4", recipe()));
    if !disk.exists() {
        make(&directory, &disk);
    }
    disk
}

fn make(directory: &Path, disk: &Path) {
    for old in files(directory) {
        if old.file_name().is_some_and(|name| name != "lock") {
            remove(&old);
        }
    }
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS {
        match follow_recipe(disk) {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!(
        "the machines' disk cannot be made:\n{}",
        failures.join("\n")
    );
}

fn follow_recipe(disk: &Path) -> Result<(), String> {
    let output = Command::new(here().join("base.sh"))
        .arg(disk)
        .arg(here().join("base"))
        .output()
        .expect("base.sh runs");
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (&output.stdout, &output.stderr);
    let [out, err] = [out, err].map(|bytes| String::from_utf8_lossy(bytes));
    Err(format!("{}\n{out}{err}", output.status))
}

/// Of an earlier recipe, or of a run that was killed.
fn remove(path: &Path) {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.expect("what is old can be removed");
}

/// A number that changes with the recipe.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut paths = vec![here().join("base.sh"), here().join("base")];
    while let Some(path) = paths.pop() {
        path.hash(&mut hasher);
        if path.is_dir() {
            paths.extend(files(&path));
        } else {
            fs::read(&path).expect("a recipe").hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths
}

fn here() -> PathBuf {
    workspace().join("tests/harness/machines")
}
