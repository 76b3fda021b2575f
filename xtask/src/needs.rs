//! What a crate's tests need of the machine, read from their source: each test that needs something begins with
//! `tucano_testkit::needs(&[ROOT, tool("nft")])`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    packages::{Package, Purpose},
    run::workspace,
};

/// What tests need of the machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whether a test needs root.
    pub root: bool,
    /// Programs of the system.
    pub tools: BTreeSet<String>,
    /// Programs of this workspace.
    pub programs: BTreeSet<String>,
}

impl Needs {
    /// What the tests of the crate `name` need.
    ///
    /// # Errors
    /// If the workspace has no such crate, or it cannot be read.
    pub fn of_crate(name: &str) -> Result<Self> {
        let directory = members()?
            .into_iter()
            .find_map(|(member, directory)| (member == name).then_some(directory))
            .ok_or_else(|| Error::new(format!("the workspace has no crate {name}")))?;
        let mut needs = Self::default();
        for path in sources(&directory)? {
            let text =
                fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
            needs.read(&text);
        }
        Ok(needs)
    }

    fn read(&mut self, text: &str) {
        let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        self.root |= words.into_iter().any(|word| word == "ROOT");
        self.tools.extend(quoted(text, "tool(\""));
        self.programs.extend(quoted(text, "programs().join(\""));
    }

    /// Adds another crate's.
    pub fn join(&mut self, other: Self) {
        self.root |= other.root;
        self.tools.extend(other.tools);
        self.programs.extend(other.programs);
    }

    /// Whether a package has to be there.
    pub fn includes(&self, package: &Package) -> bool {
        package.purpose == Purpose::Build
            || (self
                .programs
                .iter()
                .any(|program| program == "tucano_agentd")
                && package.purpose == Purpose::Run)
            || self.tools.iter().any(|tool| package.brings(tool))
    }
}

/// What stands between each `before` and the next quotation mark.
fn quoted(text: &str, before: &str) -> Vec<String> {
    let after = text.split(before).skip(1);
    after
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The workspace's crates: names and directories.
///
/// # Errors
/// If a manifest cannot be read.
pub fn members() -> Result<Vec<(String, PathBuf)>> {
    let read = |path: &Path| {
        fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))
    };
    let root = workspace();
    let manifest = read(&root.join("Cargo.toml"))?;
    let members = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(members, _)| members);
    let mut found = Vec::new();
    for member in quoted(members, "    \"") {
        let directory = root.join(member);
        let text = read(&directory.join("Cargo.toml"))?;
        let name = quoted(&text, "\nname = \"").into_iter().next();
        found.push((name.unwrap_or_default(), directory));
    }
    Ok(found)
}

/// Every file of Rust of a crate, without those of crates inside its directory.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        let entries = fs::read_dir(&next).context(|| format!("cannot read {}", next.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && !path.join("Cargo.toml").exists() && !path.ends_with("target") {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
