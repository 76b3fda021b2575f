//! Resolves a container's user in the image's passwd and group files, which are untrusted.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use oci_spec::runtime::Process;
use rustix::fs::{FileType, OFlags};
use serde::{Deserialize, Serialize};
use tucano_oci_user::{Ids, Wanted, home_of};

use super::resolve::{Root, Symlinks};

/// Maximum size of a passwd or group file.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// setuid(2) and its relatives take this value for "no change".
const NO_CHANGE: u32 = u32::MAX;

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The image does not have it, or it is no user.
    #[error(transparent)]
    User(#[from] tucano_oci_user::Error),
    /// A file cannot be read or is too large.
    #[error("{path} of the image: {source}")]
    File {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The ids of a program inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory, if the image has one.
    pub home: Option<String>,
}

impl User {
    /// Resolves the user named by a launch, or else the one of the specification.
    pub(crate) fn find(root: &Root, name: Option<&str>, process: &Process) -> Result<Self, Error> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Self::of_specification(process, &read(root, "/etc/passwd")?);
        };
        let wanted = Wanted::parse(name)?;
        let passwd = read(root, "/etc/passwd")?;
        let Ids {
            uid,
            gid,
            groups,
            home,
        } = wanted.ids(&passwd, &read(root, "/etc/group")?)?;
        // Groups of devices are in the specification, and apply to any user.
        let mut groups = groups;
        let more = process.user().additional_gids().iter().flatten();
        let more: Vec<u32> = more.filter(|gid| !groups.contains(gid)).copied().collect();
        groups.extend(more);
        Ok(Self {
            uid,
            gid,
            groups,
            home,
        })
    }

    fn of_specification(process: &Process, passwd: &str) -> Result<Self, Error> {
        let user = process.user();
        let (uid, gid) = (user.uid(), user.gid());
        let groups = user.additional_gids().clone().unwrap_or_default();
        if [uid, gid].contains(&NO_CHANGE) || groups.contains(&NO_CHANGE) {
            return Err(tucano_oci_user::Error::BadId(NO_CHANGE.to_string()).into());
        }
        Ok(Self {
            uid,
            gid,
            groups,
            home: home_of(uid, passwd).map(str::to_owned),
        })
    }
}

/// Reads a regular file of the image; empty if it does not exist. Never blocks on other file types.
fn read(root: &Root, path: &'static str) -> Result<String, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let failed = |source| Error::File { path, source };
    let file = match root.open(Path::new(path), flags, Symlinks::InRoot) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(String::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mode = rustix::fs::fstat(&file)
        .map_err(|error| failed(error.into()))?
        .st_mode;
    if !FileType::from_raw_mode(mode).is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut text = Vec::new();
    File::from(file)
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests;
