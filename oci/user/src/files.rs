//! passwd(5) and group(5). A line that cannot be used is skipped.

use crate::{
    Error,
    wanted::{Reference, id},
};

/// Largest number of supplementary groups.
pub const GROUPS_LIMIT: usize = 512;

/// Longest line, in bytes. Longer ones are skipped.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// A line of passwd.
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: Option<&'a str>,
}

/// The home directory of a uid, if passwd has an absolute one.
pub fn home_of(uid: u32, passwd: &str) -> Option<&str> {
    account(&Reference::Id(uid), passwd)?.home
}

/// The first line about this user.
pub(crate) fn account<'a>(user: &Reference, passwd: &'a str) -> Option<Account<'a>> {
    accounts(passwd).find(|account| match user {
        Reference::Id(uid) => account.uid == *uid,
        Reference::Name(name) => account.name == name,
    })
}

/// The first line about this group.
pub(crate) fn gid_of(name: &str, group: &str) -> Option<u32> {
    entries(group)
        .filter(|fields| fields[0] == name)
        .find_map(|fields| id(fields.get(2)?))
}

/// The groups that list this user.
pub(crate) fn groups_of(user: &str, group: &str) -> Result<Vec<u32>, Error> {
    if user.is_empty() {
        return Ok(Vec::new());
    }
    let groups: Vec<_> = entries(group)
        .filter(|fields| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|member| member == user))
        })
        .filter_map(|fields| id(fields.get(2)?))
        .take(GROUPS_LIMIT + 1)
        .collect();
    if groups.len() > GROUPS_LIMIT {
        return Err(Error::TooManyGroups);
    }
    Ok(groups)
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    entries(passwd).filter_map(|fields| {
        Some(Account {
            name: fields[0],
            // Only a valid uid makes a line an account; other fields may be missing or empty.
            uid: id(fields.get(2)?)?,
            gid: fields.get(3).and_then(|gid| id(gid)).unwrap_or(0),
            home: fields.get(5).copied().filter(|home| home.starts_with('/')),
        })
    })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.len() <= LINE_LIMIT_BYTES)
        .map(|line| line.trim().split(':').collect())
}

#[cfg(test)]
mod tests;
