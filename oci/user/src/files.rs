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
mod tests {
    use super::*;

    #[test]
    fn too_many_groups_are_refused() {
        let group = |count: usize| -> String {
            (0..count)
                .map(|gid| format!("g{gid}:x:{gid}:web\n"))
                .collect()
        };
        let groups = groups_of("web", &group(GROUPS_LIMIT)).unwrap();
        assert_eq!(groups.len(), GROUPS_LIMIT);
        let refused = groups_of("web", &group(GROUPS_LIMIT + 1));
        assert_eq!(refused, Err(Error::TooManyGroups));
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let long = "m,".repeat(LINE_LIMIT_BYTES);
        let group = format!("long:x:1:{long}web\nshort:x:2:web\n");
        assert_eq!(groups_of("web", &group).unwrap(), [2]);
        assert_eq!(gid_of("long", &group), None);
    }

    #[test]
    fn the_first_line_about_a_user_counts() {
        let passwd = "a:x:1:1::/one:\na:x:2:2::/two:\nb:x:1:3::/three:\n";
        assert_eq!(home_of(1, passwd), Some("/one"));
        assert_eq!(home_of(3, passwd), None);
        let group = "g:x::\ng:x:4:\ng:x:5:\n";
        assert_eq!(gid_of("g", group), Some(4));
    }
}
