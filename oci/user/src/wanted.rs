//! What a text asks for.

use crate::{Error, files};

/// Longest text, in bytes.
pub const TEXT_LIMIT_BYTES: usize = 512;

/// setuid(2) and its relatives take this value for "no change".
const NO_CHANGE: u32 = u32::MAX;

/// A parsed `user`, `uid`, `user:group` or `uid:gid`. An empty part is as if it were not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The user; root where the text has none.
    pub user: Reference,
    /// The group, if the text has one.
    pub group: Option<Reference>,
}

/// A number, or a name that a file of the image has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Digits are an id, never a name.
    Id(u32),
    /// Anything else.
    Name(String),
}

/// The ids of a program, and its home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Home directory, if passwd has an absolute one.
    pub home: Option<String>,
}

impl Wanted {
    /// Parses the text.
    ///
    /// # Errors
    /// The text is too long, or a number is no id.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_LIMIT_BYTES {
            return Err(Error::TooLong(text.len()));
        }
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            user: Reference::parse(user)?.unwrap_or(Reference::Id(0)),
            group: Reference::parse(group)?,
        })
    }

    /// The ids. A uid that passwd does not have is fine, and has group 0. A group of the text replaces the supplementary
    /// groups; without one they are those that list the user.
    ///
    /// # Errors
    /// A name is in neither file, or the user is in too many groups.
    pub fn ids(&self, passwd: &str, group: &str) -> Result<Ids, Error> {
        let account = files::account(&self.user, passwd);
        let uid = match &self.user {
            Reference::Id(uid) => *uid,
            Reference::Name(name) => account
                .as_ref()
                .map(|account| account.uid)
                .ok_or_else(|| Error::NoUser(name.clone()))?,
        };
        let (gid, groups) = match (&self.group, &account) {
            (Some(wanted), _) => (wanted.gid(group)?, Vec::new()),
            (None, Some(account)) => (account.gid, files::groups_of(account.name, group)?),
            (None, None) => (0, Vec::new()),
        };
        let home = account.and_then(|account| account.home.map(str::to_owned));
        Ok(Ids {
            uid,
            gid,
            groups,
            home,
        })
    }
}

impl Reference {
    /// None for an empty text. A number out of range is an error, never a name.
    fn parse(text: &str) -> Result<Option<Self>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.bytes().any(|byte| !byte.is_ascii_digit()) {
            return Ok(Some(Self::Name(text.to_owned())));
        }
        match id(text) {
            Some(id) => Ok(Some(Self::Id(id))),
            None => Err(Error::BadId(text.to_owned())),
        }
    }

    /// As a group.
    ///
    /// # Errors
    /// The file has no group of this name.
    pub fn gid(&self, group: &str) -> Result<u32, Error> {
        match self {
            Self::Id(gid) => Ok(*gid),
            Self::Name(name) => {
                files::gid_of(name, group).ok_or_else(|| Error::NoGroup(name.clone()))
            }
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name),
        }
    }

    /// The id, if it is one.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(_) => None,
        }
    }
}

pub(crate) fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != NO_CHANGE)
}

#[cfg(test)]
mod tests;
