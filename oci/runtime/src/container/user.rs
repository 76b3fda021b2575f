//! Resolves a container's user in the image's passwd and group files, which are untrusted.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use oci_spec::runtime::Process;
use rustix::fs::{FileType, OFlags};
use serde::{Deserialize, Serialize};

use super::resolve::{Root, Symlinks};

/// Maximum size of a passwd or group file.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Maximum length of a line.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// Maximum number of supplementary groups.
const GROUPS_LIMIT: usize = 512;

/// setuid(2) and its relatives take this value for "no change".
const NO_CHANGE: u32 = u32::MAX;

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The user does not exist.
    #[error("the image has no user {0:?} in /etc/passwd: use a uid, or a user of the image")]
    NoUser(String),
    /// The group does not exist.
    #[error("the image has no group {0:?} in /etc/group: use a gid, or a group of the image")]
    NoGroup(String),
    /// An id out of range.
    #[error("{0:?} is not a valid id: 0 to 4294967294")]
    BadId(String),
    /// The user is in too many groups.
    #[error("the user is in more than {GROUPS_LIMIT} groups")]
    TooManyGroups,
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
    /// StateDir directory, if the image has one.
    pub home: Option<String>,
}

impl User {
    /// Resolves the user named by a launch, or else the one of the specification.
    pub(crate) fn find(root: &Root, name: Option<&str>, process: &Process) -> Result<Self, Error> {
        let passwd = read(root, "/etc/passwd")?;
        match name.filter(|name| !name.is_empty()) {
            Some(name) => look_up(name, &passwd, &read(root, "/etc/group")?),
            None => of_specification(process, &passwd),
        }
    }
}

fn of_specification(process: &Process, passwd: &str) -> Result<User, Error> {
    let user = process.user();
    let (uid, gid) = (user.uid(), user.gid());
    let groups = user.additional_gids().clone().unwrap_or_default();
    if let Some(id) = groups
        .iter()
        .chain([&uid, &gid])
        .find(|id| **id == NO_CHANGE)
    {
        return Err(Error::BadId(id.to_string()));
    }
    Ok(User {
        uid,
        gid,
        groups,
        home: accounts(passwd)
            .find(|account| account.uid == uid)
            .and_then(|account| account.home.map(str::to_owned)),
    })
}

/// Resolves `user`, `uid`, `user:group` or `uid:gid`. An unknown uid is fine and has group 0. A named group replaces
/// the supplementary groups; otherwise they are those that list the user.
fn look_up(name: &str, passwd: &str, group: &str) -> Result<User, Error> {
    // An empty part is as if it were not there.
    let (user, wanted_group) = match name.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (name, None),
    };
    let number = match user {
        "" => Some(0),
        user => id(user)?,
    };
    let account = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let uid = number
        .or(account.as_ref().map(|account| account.uid))
        .ok_or_else(|| Error::NoUser(user.to_owned()))?;
    let (gid, groups) = match wanted_group {
        Some(wanted) => (find_group(wanted, group)?, Vec::new()),
        None => {
            let account_name = account.as_ref().map_or(user, |account| account.name);
            (
                account.as_ref().map_or(0, |account| account.gid),
                groups_of(account_name, group)?,
            )
        }
    };
    Ok(User {
        uid,
        gid,
        groups,
        home: account.and_then(|account| account.home.map(str::to_owned)),
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, Error> {
    if let Some(gid) = id(wanted)? {
        return Ok(gid);
    }
    entries(group)
        .find(|fields| fields[0] == wanted)
        .and_then(|fields| plain_id(fields.get(2)?))
        .ok_or_else(|| Error::NoGroup(wanted.to_owned()))
}

fn groups_of(user: &str, group: &str) -> Result<Vec<u32>, Error> {
    let groups: Vec<_> = entries(group)
        .filter(|fields| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|member| member == user))
        })
        .filter_map(|fields| plain_id(fields.get(2)?))
        .take(GROUPS_LIMIT + 1)
        .collect();
    if groups.len() > GROUPS_LIMIT {
        return Err(Error::TooManyGroups);
    }
    Ok(groups)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: Option<&'a str>,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    entries(passwd).filter_map(|fields| {
        Some(Account {
            name: fields[0],
            uid: plain_id(fields.get(2)?)?,
            // Only a valid uid makes a line an account; other fields may be missing or empty.
            gid: fields.get(3).and_then(|gid| plain_id(gid)).unwrap_or(0),
            home: fields.get(5).copied().filter(|home| home.starts_with('/')),
        })
    })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.len() <= LINE_LIMIT_BYTES)
        .map(|line| line.trim().split(':').collect())
}

/// Parses a number; none if `text` is a name. A number out of range is an error, never a name.
fn id(text: &str) -> Result<Option<u32>, Error> {
    if text.is_empty() || text.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Ok(None);
    }
    plain_id(text)
        .map(Some)
        .ok_or_else(|| Error::BadId(text.to_owned()))
}

fn plain_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != NO_CHANGE)
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
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\n\
                          huge:x:99999999999:1::/:/\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:50:adm,web\ntls:x:51:web\n";

    #[test]
    fn a_name_brings_its_ids_groups_and_home() {
        let user = look_up("web", PASSWD, GROUP).unwrap();
        let expected = User {
            uid: 33,
            gid: 34,
            groups: vec![50, 51],
            home: Some("/srv".into()),
        };
        assert_eq!(user, expected);
        assert_eq!(look_up("33", PASSWD, GROUP).unwrap(), expected);
    }

    #[test]
    fn an_empty_part_is_as_if_it_were_missing() {
        let ids = |name: &str| {
            let user = look_up(name, PASSWD, GROUP).unwrap();
            (user.uid, user.gid)
        };
        assert_eq!(ids("1000:"), (1000, 0));
        assert_eq!(ids("web:"), (33, 34));
        assert_eq!(ids(":1000"), (0, 1000));
        assert_eq!(ids("0:"), (0, 0));
        assert_eq!(ids(":www"), (0, 34));
        let with_groups = look_up("web:", PASSWD, GROUP).unwrap();
        assert_eq!(with_groups.groups, [50, 51]);
    }

    #[test]
    fn a_line_needs_only_a_name_and_a_valid_uid() {
        let passwd = "short:x:5\nnogid:x:6::\nrelative:x:7:8::home:/bin/sh\nnohome:x:9:9:::\n\
                      noid:x::1::/:\nnegative:x:-1:1::/:\nword:x:ten:1::/:\n";
        for (name, uid, gid) in [
            ("short", 5, 0),
            ("nogid", 6, 0),
            ("relative", 7, 8),
            ("nohome", 9, 9),
        ] {
            let user = look_up(name, passwd, "").unwrap();
            assert_eq!((user.uid, user.gid, user.home), (uid, gid, None), "{name}");
        }
        for name in ["noid", "negative", "word"] {
            let user = look_up(name, passwd, "");
            assert!(matches!(user, Err(Error::NoUser(_))), "{name}");
        }
    }

    #[test]
    fn a_named_group_replaces_supplementary_groups() {
        let user = look_up("web:logs", PASSWD, GROUP).unwrap();
        assert_eq!((user.gid, user.groups), (50, vec![]));
        assert_eq!(look_up("7:8", PASSWD, GROUP).unwrap().gid, 8);
    }

    #[test]
    fn an_unknown_number_is_fine_and_an_unknown_name_is_not() {
        let user = look_up("1234", "", "").unwrap();
        assert_eq!((user.uid, user.gid), (1234, 0));
        assert!(matches!(
            look_up("who", PASSWD, GROUP),
            Err(Error::NoUser(_))
        ));
        assert!(matches!(
            look_up("web:who", PASSWD, GROUP),
            Err(Error::NoGroup(_))
        ));
    }

    #[test]
    fn numbers_never_wrap_around() {
        for bad in ["4294967295", "4294967296", "18446744073709551616"] {
            assert!(
                matches!(look_up(bad, "", ""), Err(Error::BadId(_))),
                "{bad}"
            );
            let with_group = format!("1:{bad}");
            assert!(matches!(look_up(&with_group, "", ""), Err(Error::BadId(_))));
        }
        assert!(look_up("huge", PASSWD, GROUP).is_err());
    }

    #[test]
    fn too_many_groups_are_refused() {
        let group: String = (0..=GROUPS_LIMIT)
            .map(|gid| format!("g{gid}:x:{gid}:web\n"))
            .collect();
        assert!(matches!(
            look_up("web", PASSWD, &group),
            Err(Error::TooManyGroups)
        ));
    }

    fn root_with(make: impl Fn(&Path)) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        make(&directory.path().join("etc/passwd"));
        let root = Root(File::open(directory.path()).unwrap().into());
        (directory, root)
    }

    #[test]
    fn files_that_are_huge_or_no_files_are_refused() {
        let (_one, root) = root_with(|path| {
            File::create(path)
                .unwrap()
                .set_len(FILE_LIMIT_BYTES + 1)
                .unwrap();
        });
        assert!(matches!(
            read(&root, "/etc/passwd"),
            Err(Error::File { .. })
        ));
        let (_two, root) = root_with(|path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        });
        assert!(matches!(
            read(&root, "/etc/passwd"),
            Err(Error::File { .. })
        ));
        assert_eq!(read(&root, "/etc/group").unwrap(), "");
    }
}
