//! Directories of the node that services may have: those of `host_paths`, and what lies below.

use std::path::{Path, PathBuf};

use tucano_api::service::is_at_or_below;

/// Why a service does not get a directory of the node.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not listed.
    #[error("{0} is not below a directory that host_paths of this node's agent.toml lists")]
    NotListed(String),
    /// It leads elsewhere.
    #[error(
        "{path} leads to {resolved}, which is not below the directory that host_paths of this node's agent.toml lists"
    )]
    LeadsOut {
        /// The path of the service's configuration.
        path: String,
        /// Where it leads.
        resolved: PathBuf,
    },
    /// It is the agent's own.
    #[error("{path} leads to {resolved}, which is the agent's own")]
    Agents {
        /// The path of the service's configuration.
        path: String,
        /// Where it leads.
        resolved: PathBuf,
    },
    /// It cannot be examined.
    #[error("the directory {path} of this node: {source}: it is not created by Tucano")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no directory.
    #[error("{0} on this node is not a directory")]
    NotADirectory(String),
}

/// Where a path of a service's configuration leads, without symbolic links. It must be at or below a listed one as it is written, and
/// as it is resolved; `own` are the agent's directories, which no container gets.
///
/// # Errors
/// The path is not listed, does not exist, is not a directory, or leads elsewhere.
pub fn resolve(path: &str, listed: &[PathBuf], own: &[&Path]) -> Result<PathBuf, Refused> {
    let mut above = listed
        .iter()
        .filter(|listed| is_at_or_below(path, &listed.to_string_lossy()))
        .peekable();
    if above.peek().is_none() {
        return Err(Refused::NotListed(path.to_owned()));
    }
    let resolved = canonical(Path::new(path))?;
    let roots = above.map(|listed| canonical(listed));
    let roots = roots.collect::<Result<Vec<_>, _>>()?;
    if !roots.iter().any(|root| resolved.starts_with(root)) {
        return Err(Refused::LeadsOut {
            path: path.to_owned(),
            resolved,
        });
    }
    let own = own.iter().flat_map(|own| own.canonicalize());
    for own in own {
        if own.starts_with(&resolved) || resolved.starts_with(&own) {
            return Err(Refused::Agents {
                path: path.to_owned(),
                resolved,
            });
        }
    }
    match resolved.is_dir() {
        true => Ok(resolved),
        false => Err(Refused::NotADirectory(path.to_owned())),
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Refused> {
    path.canonicalize().map_err(|source| Refused::Unusable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// What a path below a temporary directory, whose `srv` is listed, resolves to.
    fn resolved(name: &str) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let srv = root.join("srv");
        fs::create_dir_all(srv.join("media/deep")).unwrap();
        fs::create_dir_all(root.join("srv-other")).unwrap();
        fs::create_dir_all(srv.join("agent/data")).unwrap();
        fs::write(srv.join("file"), "").unwrap();
        symlink(srv.join("media"), srv.join("inside")).unwrap();
        symlink("../srv-other", srv.join("outside")).unwrap();
        symlink(&srv, root.join("other-name")).unwrap();
        let listed = [srv.clone(), root.join("other-name")];
        let path = root.join(name).display().to_string();
        let own = srv.join("agent/data");
        let text = |path: &Path| {
            path.display()
                .to_string()
                .replace(root.to_str().unwrap(), "")
        };
        resolve(&path, &listed, &[&own])
            .map(|path| text(&path))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn listed_directories_and_those_below_are_found_through_links() {
        for (name, expected) in [
            ("srv/media", "/srv/media"),
            ("srv/media/deep", "/srv/media/deep"),
            ("srv/inside/deep", "/srv/media/deep"),
            ("other-name/media", "/srv/media"),
        ] {
            assert_eq!(resolved(name).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn other_directories_are_refused_with_the_reason() {
        for (name, reason) in [
            ("srv-other", "is not below a directory that host_paths"),
            ("srv/outside", "leads to"),
            ("srv/missing", "No such file or directory"),
            ("srv/file", "is not a directory"),
            ("srv/agent", "which is the agent's own"),
            ("srv/agent/data", "which is the agent's own"),
        ] {
            let error = resolved(name).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
