//! What puts the rules in force: nftables, or, where the kernel or the packages lack it, iptables.

use std::{ffi::OsStr, path::PathBuf, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use super::{
    elements::{self, Change},
    iptables::Iptables,
    rules::{Rules, render_removal, table},
};

/// Why the rules could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is missing or cannot be run.
    #[error("cannot run `{program}`: {source}; install the package nftables")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or the program refused them.
    #[error("`{program}` refused the rules of the bridge {bridge}: {message}")]
    Refused {
        /// The program.
        program: String,
        /// Whose rules.
        bridge: String,
        /// What it said.
        message: String,
    },
    /// Nothing here forwards ports.
    #[error("{nftables}; and iptables, which would do instead, neither: {iptables}")]
    Nothing {
        /// Why not by nftables.
        nftables: Box<Error>,
        /// Why not by iptables.
        iptables: Box<Error>,
    },
}

/// Nothing remains of it, and no bridge's table has its name.
const TRIAL: &str = "table ip tucano {}\ndelete table ip tucano\n";

/// What this node's rules are put in force by.
#[derive(Debug)]
pub(super) enum Firewall {
    /// One table, whose elements come and go; more than that is replaced with it, atomically.
    Nftables,
    /// Chains of the tables `nat` and `filter`.
    Iptables(Iptables),
}

impl Firewall {
    /// The first that works, as a trial shows. What an earlier agent of the bridge put in force stays.
    pub(super) async fn choose(bridge: &str) -> Result<Self, Error> {
        let nftables = match nft(bridge, TRIAL).await {
            Ok(()) => return Ok(Self::Nftables),
            Err(error) => error,
        };
        if Iptables::LEGACY.try_out(bridge).await.is_ok() {
            return Ok(Self::Iptables(Iptables::LEGACY));
        }
        match Iptables::USUAL.try_out(bridge).await {
            Ok(()) => Ok(Self::Iptables(Iptables::USUAL)),
            Err(iptables) => Err(Error::Nothing {
                nftables: Box::new(nftables),
                iptables: Box::new(iptables),
            }),
        }
    }

    /// What the node lacks, if it does.
    pub(super) fn lacking(&self) -> Option<String> {
        match self {
            Self::Nftables => None,
            Self::Iptables(iptables) => Some(format!(
                "nftables does not work here: ports are forwarded by {}",
                iptables.program
            )),
        }
    }

    /// Puts rules in force, after those that this agent has put in force `before`.
    pub(super) async fn apply(&self, rules: &Rules, before: Option<&Rules>) -> Result<(), Error> {
        match self {
            Self::Nftables => {
                if let Some(changes) = before.and_then(|before| rules.changes(before)) {
                    match change(&rules.bridge, changes).await {
                        Ok(()) => return Ok(()),
                        // Somebody else has changed the table: the whole of it helps.
                        Err(error) => tracing::warn!(%error, "making the whole table anew"),
                    }
                }
                nft(&rules.bridge, &rules.render()).await
            }
            Self::Iptables(iptables) => iptables.apply(rules, before.is_none()).await,
        }
    }

    /// Removes all of the bridge; absent is fine.
    pub(super) async fn remove(&self, bridge: &str) -> Result<(), Error> {
        match self {
            Self::Nftables => nft(bridge, &render_removal(bridge)).await,
            Self::Iptables(iptables) => iptables.remove(bridge).await,
        }
    }
}

/// Changes elements of the bridge's table, all of them or none.
async fn change(bridge: &str, changes: Vec<Change>) -> Result<(), elements::Error> {
    let table = table(bridge);
    let changed = tokio::task::spawn_blocking(move || elements::change(&table, &changes));
    changed
        .await
        .map_err(|ended| elements::Error::Socket(ended.into()))?
}

async fn nft(bridge: &str, text: &str) -> Result<(), Error> {
    feed(bridge, "nft", &["-f", "-"], text).await
}

/// Runs a program with this text as its standard input.
pub(super) async fn feed(
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
    let mut child = Command::new(found(program, &path))
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
    // A refusal before everything is read shows in the exit status, with the reason.
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

/// Where it is, so that nobody has to look for it between `fork` and `execve`: then there need be no copy of the agent's memory.
fn found(program: &str, path: &OsStr) -> PathBuf {
    let mut places = std::env::split_paths(path).map(|directory| directory.join(program));
    let found = places.find(|place| place.is_absolute() && place.is_file());
    found.unwrap_or_else(|| program.into())
}

/// The PATH and the directories of system programs, which a service's PATH may lack.
fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/local/sbin");
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_refuses_and_one_that_is_missing_are_told() {
        let refused = feed("b0", "sh", &["-s"], "echo no such thing >&2; exit 3").await;
        let text = refused.unwrap_err().to_string();
        assert_eq!(
            text,
            "`sh` refused the rules of the bridge b0: no such thing"
        );
        let missing = feed("b0", "no-such-program", &[], "").await.unwrap_err();
        assert!(
            missing.to_string().contains("`no-such-program`"),
            "{missing}"
        );
    }

    #[test]
    fn only_what_stands_in_is_noted() {
        assert_eq!(Firewall::Nftables.lacking(), None);
        let note = Firewall::Iptables(Iptables::LEGACY).lacking().unwrap();
        assert!(note.contains("by iptables-legacy"), "{note}");
    }
}
