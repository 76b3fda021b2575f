//! The disk that every machine begins with: made once for each recipe and suite, whichever test comes first.

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
pub(super) fn disk(suite: &str) -> PathBuf {
    let directory = workspace().join("target/machines");
    fs::create_dir_all(&directory).expect("a directory");
    let lock = File::create(directory.join("lock")).expect("a lock");
    // Tests run at once, of several programs too; the lock goes with its file.
    lock.lock().expect("a lock");
    let recipe = format!("base-{:016x}", recipe());
    let disk = directory.join(format!("{recipe}-{suite}.ext4"));
    if !disk.exists() {
        remove_old(&directory, &recipe);
        make(&disk, suite);
    }
    disk
}

fn make(disk: &Path, suite: &str) {
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS {
        match follow_recipe(disk, suite) {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!(
        "the machines' disk of {suite} cannot be made:\n{}",
        failures.join("\n")
    );
}

fn follow_recipe(disk: &Path, suite: &str) -> Result<(), String> {
    let output = Command::new(here().join("base.sh"))
        .arg(disk)
        .arg(here().join("base"))
        .arg(suite)
        .output()
        .expect("base.sh runs");
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (&output.stdout, &output.stderr);
    let [out, err] = [out, err].map(|bytes| String::from_utf8_lossy(bytes));
    Err(format!("{}\n{out}{err}", output.status))
}

/// What is of an earlier recipe, or of a run that was killed.
fn remove_old(directory: &Path, recipe: &str) {
    for path in files(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name != "lock" && !(name.starts_with(recipe) && name.ends_with(".ext4")) {
            fs::remove_file(&path).expect("what is old can be removed");
        }
    }
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
