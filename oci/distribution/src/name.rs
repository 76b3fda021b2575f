//! Names of repositories, tags, and references to both (OCI distribution specification, "Pulling manifests").

use std::{fmt, str::FromStr};

use oci_spec::image::Digest;

/// Most bytes of a repository's name.
const NAME_BYTES: usize = 255;
/// Most bytes of a tag.
const TAG_BYTES: usize = 128;

/// Why a name, tag or reference is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a repository's name.
    #[error(
        "{0:?} is not a repository name: lower case letters and digits, separated by `.`, `_`, `__`, `-` or `/`, at most {NAME_BYTES} characters"
    )]
    Repository(String),
    /// Not a tag.
    #[error(
        "{0:?} is not a tag: letters, digits, `_`, `.` and `-`, at most {TAG_BYTES} characters"
    )]
    Tag(String),
    /// Not a digest that can be used.
    #[error(
        "{0:?} is not a digest: sha256: and 64 hexadecimal digits, or sha512: and 128 hexadecimal digits"
    )]
    Digest(String),
    /// The tag or digest is missing.
    #[error("{0:?} is not a reference: write name:tag or name@sha256:…")]
    Reference(String),
}

/// A repository's name, such as `team/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// A tag, such as `1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// One image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By tag.
    Tag(Tag),
    /// By the digest of its manifest or index.
    Digest(Digest),
}

/// A repository and an image in it: `name:tag` or `name@digest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub name: Name,
    /// The tag or digest.
    pub which: Which,
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_name = text.len() <= NAME_BYTES && text.split('/').all(is_component);
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName::Repository(shown(text))),
        }
    }
}

impl FromStr for Tag {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_tag = text.len() <= TAG_BYTES
            && text.bytes().next().is_some_and(is_word)
            && text
                .bytes()
                .all(|byte| is_word(byte) || b".-".contains(&byte));
        match is_tag {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName::Tag(shown(text))),
        }
    }
}

impl FromStr for Which {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        // A tag has no colon, and a digest always has one.
        match text.contains(':') {
            true => digest(text).map(Self::Digest),
            false => text.parse().map(Self::Tag),
        }
    }
}

impl FromStr for Reference {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (name, which) = if let Some((name, hash)) = text.split_once('@') {
            (name, Which::Digest(digest(hash)?))
        } else {
            let (name, tag) = text
                .rsplit_once(':')
                .ok_or_else(|| BadName::Reference(shown(text)))?;
            (name, Which::Tag(tag.parse()?))
        };
        let name = name.parse()?;
        Ok(Self { name, which })
    }
}

/// A digest of a supported algorithm.
pub(crate) fn digest(text: &str) -> Result<Digest, BadName> {
    let is_known = text.starts_with("sha256:") || text.starts_with("sha512:");
    let digest = is_known.then(|| text.parse().ok()).flatten();
    digest.ok_or_else(|| BadName::Digest(shown(text)))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.as_bytes();
    loop {
        let word = bytes.iter().take_while(|byte| is_word(**byte)).count();
        if word == 0 {
            return false;
        }
        bytes = &bytes[word..];
        let separator = bytes.iter().take_while(|byte| !is_word(**byte)).count();
        match &bytes[..separator] {
            [] => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        bytes = &bytes[separator..];
    }
}

fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag.as_str()),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.which {
            Which::Tag(_) => ':',
            Which::Digest(_) => '@',
        };
        write!(f, "{}{separator}{}", self.name, self.which)
    }
}

#[cfg(test)]
mod tests;
