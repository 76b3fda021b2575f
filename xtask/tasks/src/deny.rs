//! Licences, sources and known vulnerabilities of dependencies, by cargo-deny.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::run::{Tool, step, workspace};

/// What checks them.
const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    // It runs for seconds: optimising it takes minutes.
    arguments: &["--debug"],
};
/// Where cargo-deny looks for the advisories.
const DATABASE_URL: &str = "https://github.com/RustSec/advisory-db";
/// Directory with the advisories, for machines that cannot reach that.
const DATABASE: &str = "TUCANO_ADVISORY_DB";

/// Runs every check that can be run here, and says which cannot.
pub(crate) fn run() -> anyhow::Result<()> {
    let program = CARGO_DENY.find_or_install()?;
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(workspace()).arg("--locked");
        command
    };
    if let Some(database) = env::var_os(DATABASE) {
        let local = Local::prepare(Path::new(&database))?;
        return step(
            "checking the dependencies",
            local
                .direct(&mut deny())
                .arg("check")
                .arg("--hide-inclusion-graph"),
        );
    }
    let all = step("fetching the advisories", deny().args(["fetch", "db"]));
    let mut check = deny();
    check.args(["check", "--hide-inclusion-graph"]);
    if let Err(error) = all {
        eprintln!(
            "xtask: {error:#}: known vulnerabilities are NOT checked; give a copy of {DATABASE_URL} with {DATABASE}=<directory>"
        );
        check.args(["bans", "licenses", "sources"]);
    }
    step("checking the dependencies", &mut check)
}

/// A repository made of a directory of advisories. cargo-deny fetches its database by git alone, so git is told to
/// find the well-known address here, and a configuration beside it keeps the user's own copy as it is.
#[derive(Debug)]
struct Local {
    repository: PathBuf,
    config: PathBuf,
}

impl Local {
    fn prepare(database: &Path) -> anyhow::Result<Self> {
        if !database.join("crates").is_dir() {
            bail!(
                "{DATABASE}={} is no advisory database: it has no directory `crates`",
                database.display()
            );
        }
        let directory = workspace().join("target/deny");
        let local = Self {
            repository: directory.join("repository"),
            config: directory.join("deny.toml"),
        };
        for old in [&local.repository, &directory.join("databases")] {
            if old.exists() {
                fs::remove_dir_all(old)
                    .with_context(|| format!("cannot remove {}", old.display()))?;
            }
        }
        fs::create_dir_all(directory.join("databases"))
            .with_context(|| format!("cannot create {}", directory.display()))?;
        local.copy(database)?;
        let text =
            fs::read_to_string(workspace().join("deny.toml")).context("cannot read deny.toml")?;
        let config = with_database_path(&text, &directory.join("databases"))?;
        fs::write(&local.config, config)
            .with_context(|| format!("cannot write {}", local.config.display()))?;
        Ok(local)
    }

    /// A commit of all files, without copying them first.
    fn copy(&self, database: &Path) -> anyhow::Result<()> {
        step(
            "making a repository of the advisories",
            Command::new("git")
                .args(["init", "--quiet", "--initial-branch=main"])
                .arg(&self.repository),
        )?;
        let git = || {
            let mut command = Command::new("git");
            command
                .arg("-C")
                .arg(&self.repository)
                .arg("--work-tree")
                .arg(database);
            command.args([
                "-c",
                "user.name=xtask",
                "-c",
                "user.email=xtask@localhost",
                "-c",
                "gc.auto=0",
            ]);
            command
        };
        step(
            "adding them to it",
            git().args(["add", "--force", "crates"]),
        )?;
        step(
            "committing them",
            git().args([
                "commit",
                "--quiet",
                "--no-verify",
                "--message",
                "advisories",
            ]),
        )
    }

    fn direct<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .arg("--config")
            .arg(&self.config)
            .env("GIT_CONFIG_COUNT", "1")
            .env(
                "GIT_CONFIG_KEY_0",
                format!("url.file://{}.insteadOf", self.repository.display()),
            )
            .env("GIT_CONFIG_VALUE_0", DATABASE_URL)
    }
}

fn with_database_path(config: &str, path: &Path) -> anyhow::Result<String> {
    let mut config: toml::Table = config.parse().context("deny.toml is not TOML")?;
    let advisories = config
        .entry("advisories")
        .or_insert_with(|| toml::Table::new().into());
    let advisories = advisories
        .as_table_mut()
        .context("deny.toml: advisories is no table")?;
    advisories.insert("db-path".to_owned(), path.display().to_string().into());
    Ok(config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_databases_path_is_changed() {
        let config = "[advisories]\nyanked = \"deny\"\n[licenses]\nallow = [\"MIT\"]\n";
        let changed: toml::Table = with_database_path(config, Path::new("/x"))
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(changed["advisories"]["db-path"].as_str(), Some("/x"));
        assert_eq!(changed["advisories"]["yanked"].as_str(), Some("deny"));
        assert_eq!(changed["licenses"]["allow"][0].as_str(), Some("MIT"));
    }

    #[test]
    fn a_directory_without_advisories_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Local::prepare(directory.path()).unwrap_err().to_string();
        assert!(error.contains("no directory `crates`"), "{error}");
    }
}
