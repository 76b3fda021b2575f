//! The user of an image's `User`, of a service's `user` and of `exec --user`, looked up in the image's passwd and group
//! files. PURE: the deploy check and the runtime read these files from different places, and agree by this one code.
//!
//! - `wanted`: the text, parsed: `user`, `uid`, `user:group`, `uid:gid`, and those with an empty part;
//! - `files`: passwd(5) and group(5), which are untrusted.

mod files;
mod wanted;

pub use files::{GROUPS_LIMIT, home_of};
pub use wanted::{Ids, Reference, TEXT_LIMIT_BYTES, Wanted};

/// Why a user cannot be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The user does not exist.
    #[error("the image has no user {0:?} in /etc/passwd: use a uid, or a user of the image")]
    NoUser(String),
    /// The group does not exist.
    #[error("the image has no group {0:?} in /etc/group: use a gid, or a group of the image")]
    NoGroup(String),
    /// An id out of range.
    #[error("{0:?} is not a valid id: 0 to 4294967294")]
    BadId(String),
    /// The text is longer than [`TEXT_LIMIT_BYTES`].
    #[error("the user has {0} bytes, and {TEXT_LIMIT_BYTES} is the limit")]
    TooLong(usize),
    /// The user is in more than [`GROUPS_LIMIT`] groups.
    #[error("the user is in more than {GROUPS_LIMIT} groups")]
    TooManyGroups,
}
