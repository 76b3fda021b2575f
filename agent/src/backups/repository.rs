//! Repositories: what a desired set says of one, with the values of its secrets and the checks of this node.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tucano_api::{secrets::SecretVersion, service::is_at_or_below, volumes::Repository as Wanted};
use tucano_backup::{Class, Failure, Repository, S3, Secret};

use crate::runner::secrets::Secrets;

const FILE: &str = "file://";
/// Pause before the controller is asked again for a secret.
const PAUSE: Duration = Duration::from_secs(1);

/// What this node allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Its `backup_paths`.
    pub(super) listed: &'a [PathBuf],
    /// Directories of the agent.
    pub(super) own: &'a [&'a Path],
    /// How long it waits for a controller that does not give a secret, such as while it restarts.
    pub(super) patience: Duration,
}

/// The repository, with the values of its secrets in memory.
///
/// # Errors
/// The node does not allow its directory, or that is missing; a secret cannot be had, or has another form. A message for the user.
pub(super) async fn open(
    secrets: &Secrets,
    wanted: &Wanted,
    rules: Rules<'_>,
) -> Result<Repository, String> {
    let mut location = wanted.location.clone();
    if let Some(directory) = wanted.location.strip_prefix(FILE) {
        let resolved = directory_of(directory, wanted.id.is_some(), rules)?;
        location = format!("{FILE}{}", resolved.display());
    }
    let password = text(secrets, &wanted.password, rules).await?;
    let s3 = match location.starts_with("s3://") {
        false => None,
        true => {
            let mut s3 = S3 {
                endpoint: wanted.endpoint.clone(),
                ..S3::default()
            };
            if let Some(region) = &wanted.region {
                s3.region.clone_from(region);
            }
            if let Some(secret) = &wanted.access_key {
                let value = text(secrets, secret, rules).await?;
                let (id, key) = access_key(&value, secret)?;
                s3.access_key_id = Some(id);
                s3.secret_access_key = Some(key);
            }
            Some(s3)
        }
    };
    Ok(Repository {
        location,
        password: Secret::new(password.as_str()),
        expected_id: wanted.id.clone(),
        s3,
    })
}

/// What happened, in words for the user, who knows secrets by their names.
pub(super) fn explain(failure: &Failure, wanted: &Wanted) -> String {
    match failure.class {
        Class::WrongPassword => {
            let SecretVersion { name, version } = &wanted.password;
            format!("{failure}: it is version {version} of the secret {name}")
        }
        _ => failure.to_string(),
    }
}

/// A value as text. Files with passwords often end with a line feed, which restic leaves out, too.
async fn text(
    secrets: &Secrets,
    secret: &SecretVersion,
    rules: Rules<'_>,
) -> Result<zeroize::Zeroizing<String>, String> {
    let deadline = tokio::time::Instant::now() + rules.patience;
    let value = loop {
        match secrets.value(secret).await {
            Ok(value) => break value,
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let value = std::str::from_utf8(&value);
    let value = value.map_err(|_| format!("secret {} is not text", secret.name))?;
    let value = value.trim_end_matches(['\r', '\n']);
    match value.is_empty() {
        true => Err(format!("secret {} is empty", secret.name)),
        false => Ok(zeroize::Zeroizing::new(value.to_owned())),
    }
}

fn access_key(value: &str, secret: &SecretVersion) -> Result<(String, Secret), String> {
    match value.split_once(':') {
        Some((id, key)) if !id.is_empty() && !key.is_empty() => {
            Ok((id.to_owned(), Secret::new(key)))
        }
        _ => Err(format!(
            "secret {} is no access key: write it as ID:KEY",
            secret.name
        )),
    }
}

/// The directory of a repository, without links. One that was used before has to be there: an unmounted disk must not become a new
/// repository. Otherwise it may be absent, or empty, below a listed one that exists.
fn directory_of(path: &str, was_used: bool, rules: Rules<'_>) -> Result<PathBuf, String> {
    let listed = rules.listed.iter();
    let above = listed.filter(|listed| is_at_or_below(path, &listed.to_string_lossy()));
    let above: Vec<&PathBuf> = above.collect();
    if above.is_empty()
        || Path::new(path)
            .components()
            .any(|part| part.as_os_str() == "..")
    {
        return Err(format!(
            "{path} is not below a directory that backup_paths of this node's agent.toml lists"
        ));
    }
    let resolved = match Path::new(path).canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match was_used {
            true => {
                return Err(format!(
                    "the repository's directory {path} is not there any more: is its file system mounted? It is not created anew"
                ));
            }
            false => absent(Path::new(path))?,
        },
        resolved => resolved.map_err(|error| unusable(path, &error))?,
    };
    let roots = above.iter().map(|root| root.canonicalize());
    let roots: Vec<PathBuf> = roots
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, &error))?;
    if !roots.iter().any(|root| resolved.starts_with(root)) {
        return Err(format!(
            "{path} leads to {}, which is not below the directory that backup_paths of this node's agent.toml lists",
            resolved.display()
        ));
    }
    let own = rules.own.iter().flat_map(|own| own.canonicalize());
    for own in own {
        if own.starts_with(&resolved) || resolved.starts_with(&own) {
            return Err(format!(
                "{path} leads to {}, which is the agent's own",
                resolved.display()
            ));
        }
    }
    match resolved.is_dir() || !resolved.exists() {
        true => Ok(resolved),
        false => Err(format!("{path} on this node is not a directory")),
    }
}

/// Where a path leads whose end is not there.
fn absent(path: &Path) -> Result<PathBuf, String> {
    let mut missing = Vec::new();
    for above in path.ancestors() {
        match above.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |to, name| to.join(name))),
            // A link to nowhere is there, and leads somewhere else.
            Err(_) if above.symlink_metadata().is_ok() => break,
            Err(_) => missing.extend(above.file_name()),
        }
    }
    Err(unusable(
        &path.display().to_string(),
        &"a link leads nowhere",
    ))
}

fn unusable(path: &str, error: &dyn std::fmt::Display) -> String {
    format!("the repository's directory {path} of this node: {error}")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn secret() -> SecretVersion {
        SecretVersion {
            name: "bucket".parse().unwrap(),
            version: 1,
        }
    }

    #[test]
    fn access_keys_are_an_id_and_a_key() {
        let (id, key) = access_key("AKIA:se:cret", &secret()).unwrap();
        assert_eq!((id.as_str(), key.reveal()), ("AKIA", "se:cret"));
        for wrong in ["hidden", ":hidden", "hidden:"] {
            let error = access_key(wrong, &secret()).unwrap_err();
            assert!(error.contains("secret bucket"), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    /// What a path below a temporary directory, whose `srv` is listed, resolves to.
    fn resolved(name: &str, was_used: bool) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let srv = root.join("srv");
        fs::create_dir_all(srv.join("there")).unwrap();
        fs::create_dir_all(root.join("other")).unwrap();
        fs::create_dir_all(srv.join("agent/data")).unwrap();
        fs::write(srv.join("file"), "").unwrap();
        symlink("there", srv.join("inside")).unwrap();
        symlink("../other", srv.join("outside")).unwrap();
        symlink("../nothing", srv.join("nowhere")).unwrap();
        let own = srv.join("agent");
        let listed = [srv.clone(), root.join("unmounted")];
        let rules = Rules {
            listed: &listed,
            own: &[&own],
            patience: Duration::ZERO,
        };
        let path = root.join(name).display().to_string();
        let found = directory_of(&path, was_used, rules);
        found.map(|path| {
            let text = path.display().to_string();
            text.replace(root.to_str().unwrap(), "")
        })
    }

    #[test]
    fn directories_below_listed_ones_are_found_and_new_ones_may_be_absent() {
        for (name, expected) in [
            ("srv/there", "/srv/there"),
            ("srv/inside/new/one", "/srv/there/new/one"),
            ("srv/new", "/srv/new"),
        ] {
            assert_eq!(resolved(name, false).as_deref(), Ok(expected), "{name}");
        }
        assert_eq!(resolved("srv/there", true).as_deref(), Ok("/srv/there"));
    }

    #[test]
    fn other_directories_are_refused_with_the_reason() {
        for (name, was_used, reason) in [
            ("other", false, "is not below a directory that backup_paths"),
            (
                "srv/../other",
                false,
                "is not below a directory that backup_paths",
            ),
            ("srv/outside", false, "leads to"),
            ("srv/outside/new", false, "leads to"),
            ("srv/nowhere", false, "a link leads nowhere"),
            ("srv/nowhere/new", false, "a link leads nowhere"),
            ("srv/file", false, "is not a directory"),
            ("srv/agent/data", false, "the agent's own"),
            ("srv/agent/new", false, "the agent's own"),
            ("srv/new", true, "is not there any more"),
            ("unmounted/new", false, "No such file or directory"),
        ] {
            let error = resolved(name, was_used).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
