//! Puts the rules in force by nftables, or by iptables where the kernel or the packages lack nftables.

use std::{ffi::OsStr, path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use super::{
    elements::{self, Change},
    iptables::Iptables,
    rules::{Rules, render_removal, table},
    service_rules,
};

/// Why the rules could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot be run.
    #[error("cannot run `{program}`: {source}; install the package nftables")]
    Run {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or the program refused them.
    #[error("`{program}` refused the rules of the bridge {bridge}: {message}")]
    Refused {
        /// The program.
        program: String,
        /// The bridge.
        bridge: String,
        /// The program's error message.
        message: String,
    },
    /// Neither nftables nor iptables works.
    #[error("neither nftables nor iptables works on this node: {nftables}; {iptables}")]
    Unavailable {
        /// Why nftables does not.
        nftables: Box<Error>,
        /// Why iptables does not.
        iptables: Box<Error>,
    },
}

/// Creates and deletes a table whose name no bridge's table has.
const PROBE: &str = "table ip tucano {}\ndelete table ip tucano\n";

/// The firewall program of this node.
#[derive(Debug)]
pub(super) enum Firewall {
    /// One table. Elements change incrementally; for any other change the table is replaced atomically.
    Nftables {
        /// Whether they can connect services.
        services: bool,
    },
    /// Chains of the tables `nat` and `filter`.
    Iptables(Iptables),
}

impl Firewall {
    /// The first one that works. Rules of an earlier agent stay in force.
    pub(super) async fn detect(bridge: &str) -> Result<Self, Error> {
        let nftables = match nft(bridge, PROBE).await {
            Ok(()) => {
                let services = nft(bridge, &service_rules::probe("tucano")).await;
                if let Err(error) = &services {
                    tracing::warn!(%error, "services cannot be connected");
                }
                let services = services.is_ok();
                return Ok(Self::Nftables { services });
            }
            Err(error) => error,
        };
        if Iptables::LEGACY.probe(bridge).await.is_ok() {
            return Ok(Self::Iptables(Iptables::LEGACY));
        }
        match Iptables::SYSTEM.probe(bridge).await {
            Ok(()) => Ok(Self::Iptables(Iptables::SYSTEM)),
            Err(iptables) => Err(Error::Unavailable {
                nftables: Box::new(nftables),
                iptables: Box::new(iptables),
            }),
        }
    }

    /// Whether it can connect services.
    pub(super) fn connects_services(&self) -> bool {
        matches!(self, Self::Nftables { services: true })
    }

    /// The condition to report, if nftables does not work.
    pub(super) fn condition(&self) -> Option<String> {
        match self {
            Self::Nftables { services: true } => None,
            Self::Nftables { services: false } => Some(
                "the kernel or nft lacks what connects services (maps by `numgen`): services with `needs` are not run here"
                    .to_owned(),
            ),
            Self::Iptables(iptables) => Some(format!(
                "nftables does not work on this node: ports are forwarded by {}, and services with `needs` are not run here",
                iptables.program
            )),
        }
    }

    /// Puts rules in force; `before` are those that this agent put in force earlier. Whether it has replaced all of them.
    pub(super) async fn apply(&self, rules: &Rules, before: Option<&Rules>) -> Result<bool, Error> {
        match self {
            Self::Nftables { .. } => {
                if let Some(changes) = before.and_then(|before| rules.changes(before)) {
                    match change(&rules.bridge, changes).await {
                        Ok(()) => return Ok(false),
                        // Another program changed the table.
                        Err(error) => tracing::warn!(%error, "replacing the whole table"),
                    }
                }
                nft(&rules.bridge, &rules.render()).await?;
            }
            Self::Iptables(iptables) => iptables.apply(rules, before.is_none()).await?,
        }
        Ok(true)
    }

    /// Removes the bridge's rules; missing ones are no error.
    pub(super) async fn remove(&self, bridge: &str) -> Result<(), Error> {
        match self {
            Self::Nftables { .. } => nft(bridge, &render_removal(bridge)).await,
            Self::Iptables(iptables) => iptables.remove(bridge).await,
        }
    }
}

/// Changes elements of the bridge's table atomically.
async fn change(bridge: &str, changes: Vec<Change>) -> Result<(), elements::Error> {
    let table = table(bridge);
    let changed = tokio::task::spawn_blocking(move || elements::change(&table, &changes));
    changed
        .await
        .map_err(|ended| elements::Error::Socket(ended.into()))?
}

async fn nft(bridge: &str, text: &str) -> Result<(), Error> {
    run(bridge, "nft", &["-f", "-"], text).await
}

/// Runs a program with the text on its standard input.
pub(super) async fn run(
    bridge: &str,
    program: &str,
    arguments: &[&str],
    text: &str,
) -> Result<(), Error> {
    let failed = |source| Error::Run {
        program: program.to_owned(),
        source,
    };
    let path = search_path();
    let mut child = Command::new(resolve(program, &path))
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let no_input = || failed(std::io::Error::other("its standard input is not connected"));
    let mut stdin = child.stdin.take().ok_or_else(no_input)?;
    // A program that stops reading early reports the reason by its exit status and stderr, which come first.
    let written = stdin.write_all(text.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return written.map_err(failed);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused {
        program: program.to_owned(),
        bridge: bridge.to_owned(),
        message: message.trim().chars().take(400).collect(),
    })
}

/// The program's path. Resolved here so that the standard library can use `posix_spawn` instead of `fork`.
fn resolve(program: &str, path: &OsStr) -> PathBuf {
    let mut places = std::env::split_paths(path).map(|directory| directory.join(program));
    let found = places.find(|place| place.is_absolute() && place.is_file());
    found.unwrap_or_else(|| program.into())
}

/// `PATH` and the directories of system programs, which the `PATH` of a systemd service may lack.
fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/local/sbin");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_and_missing_programs_are_reported() {
        let refused = run("b0", "sh", &["-s"], "echo no such thing >&2; exit 3").await;
        let text = refused.unwrap_err().to_string();
        assert_eq!(
            text,
            "`sh` refused the rules of the bridge b0: no such thing"
        );
        let missing = run("b0", "no-such-program", &[], "").await.unwrap_err();
        assert!(
            missing.to_string().contains("`no-such-program`"),
            "{missing}"
        );
    }

    #[test]
    fn only_the_replacement_is_a_condition() {
        assert_eq!(Firewall::Nftables { services: true }.condition(), None);
        let old = Firewall::Nftables { services: false }.condition().unwrap();
        assert!(old.contains("`needs`"), "{old}");
        let condition = Firewall::Iptables(Iptables::LEGACY).condition().unwrap();
        assert!(condition.contains("by iptables-legacy"), "{condition}");
    }
}
