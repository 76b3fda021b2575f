//! Secrets of a service: values that the controller stores encrypted, and that its processes get as files in memory or in their
//! environment.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ServiceConfig,
    file::FileMode,
    validate::{length_problem, owner_problems},
};
use crate::{ids::SecretName, secrets::SecretVersion, settings::Problem};

/// Most secrets of one service.
pub const MAX_SECRETS: usize = 64;
/// Largest value of a secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 1 << 20;
/// Largest value that can be a variable of the environment, in bytes: Linux's MAX_ARG_STRLEN without name and NUL.
pub const MAX_ENV_BYTES: usize = 64 << 10;
/// Where a secret's file is, unless `path` says otherwise.
const DIRECTORY: &str = "/run/secrets";

/// A secret that the processes of a service have, as a file or as a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The name that `tucano secret set` gave it.
    pub name: SecretName,
    /// The absolute path of its file in the container: `/run/secrets/NAME` where neither this nor `env` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The variable that has its value, in place of a file. Whatever can read the process's environment can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Permissions of its file.
    #[serde(default)]
    #[schema(value_type = String)]
    pub mode: FileMode,
    /// Owner of its file in the container.
    #[serde(default)]
    pub uid: u32,
    /// Group of its file in the container.
    #[serde(default)]
    pub gid: u32,
    /// Its version, which belongs to the revision. The controller sets it: to the newest one with each deploy, and whenever the
    /// secret gets another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl SecretRef {
    /// The stored value that it names. Versions begin at 1: without one it names none.
    pub fn stored(&self) -> SecretVersion {
        SecretVersion {
            name: self.name.clone(),
            version: self.version.unwrap_or(0),
        }
    }

    /// The path of its file; `None` where it is a variable.
    pub fn path(&self) -> Option<String> {
        match (&self.path, &self.env) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(format!("{DIRECTORY}/{}", self.name)),
        }
    }
}

/// What is wrong with the secrets of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let secrets = &config.secret;
    let mut problems = Vec::new();
    problems.extend(length_problem(
        "secret",
        "secrets",
        secrets.len(),
        MAX_SECRETS,
    ));
    for (index, secret) in secrets.iter().enumerate() {
        let key = |name: &str| format!("secret[{index}].{name}");
        if secret.path.is_some() && secret.env.is_some() {
            problems.push(Problem::new(key("env"), "give only one of path and env"));
        }
        let item = format!("secret[{index}]");
        problems.extend(owner_problems(&item, secret.uid, secret.gid));
        let Some(variable) = &secret.env else {
            continue;
        };
        let is_valid = !variable.is_empty() && !variable.contains(['=', '\0']);
        let reserved =
            ["PORT", "PATH"].contains(&variable.as_str()) || variable.starts_with("TUCANO_");
        let message = if !is_valid {
            Some(format!("{variable:?} is not the name of a variable"))
        } else if reserved {
            Some(format!("{variable} is set by the agent: use another name"))
        } else if config.env.contains_key(variable) {
            Some(format!("`env` sets {variable} already"))
        } else if secrets[..index]
            .iter()
            .any(|it| it.env.as_ref() == Some(variable))
        {
            Some(format!("another secret is the variable {variable} already"))
        } else {
            None
        };
        problems.extend(message.map(|message| Problem::new(key("env"), message)));
    }
    problems
}

#[cfg(test)]
mod tests;
