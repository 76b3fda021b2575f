//! Which extended attributes of a layer's entries are kept, and which are invalid.

use std::collections::BTreeMap;

use rustix::io::{Errno, Result};

use crate::limits::XATTR_BYTES;

/// Marks an implied directory, and describes the root of an unpacked layer. Overlayfs never shows attributes with this
/// prefix, nor copies them up.
pub(crate) const MARK: &str = "trusted.overlay.tucano";
/// The value of [`MARK`] on a directory without an entry of its own.
pub(crate) const IMPLIED: &[u8] = b"implied";
/// Largest list of a file's attribute names (XATTR_LIST_MAX).
const LIST_BYTES: usize = 64 << 10;
/// A file's capabilities.
const CAPABILITY: &str = "security.capability";
/// Longest name (XATTR_NAME_MAX).
const NAME_BYTES: usize = 255;
/// The revisions of capabilities on disk, with their sizes in bytes (`linux/capability.h`).
const CAPABILITY_REVISIONS: [(u8, usize); 2] = [(2, 20), (3, 24)];

/// Whether an attribute is kept: those that have an effect in a container. Others, above all overlayfs's own, would have
/// one on the node.
pub(crate) fn is_kept(xattr: &str) -> bool {
    let is_user = xattr.starts_with("user.") && !xattr.starts_with("user.overlay.");
    is_user || xattr == CAPABILITY
}

/// The size of the attributes that are kept.
pub(crate) fn kept_bytes(xattrs: &[(String, Vec<u8>)]) -> u64 {
    let kept = xattrs.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.len() + value.len()) as u64)
        .sum()
}

/// The attributes of an entry that are kept, each name once with its last value.
pub(crate) fn kept(xattrs: &[(String, Vec<u8>)]) -> Result<Vec<(&str, &[u8])>> {
    let mut last = BTreeMap::new();
    for (name, value) in xattrs.iter().filter(|(name, _)| is_kept(name)) {
        check(name, value)?;
        last.insert(name.as_str(), &value[..]);
    }
    let names: usize = last.keys().map(|name| name.len() + 1).sum();
    if names > LIST_BYTES {
        return Err(Errno::TOOBIG);
    }
    Ok(last.into_iter().collect())
}

/// Refuses attributes that the kernel refuses on any file system.
fn check(name: &str, value: &[u8]) -> Result<()> {
    if value.len() > XATTR_BYTES {
        return Err(Errno::TOOBIG);
    }
    if name.len() > NAME_BYTES {
        return Err(Errno::RANGE);
    }
    let is_malformed = name == "user." || name.contains('\0');
    if is_malformed || (name == CAPABILITY && !is_capability(value)) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn is_capability(value: &[u8]) -> bool {
    // Little-endian: the revision is the first word's highest byte.
    let revision = value.get(3).copied().unwrap_or_default();
    CAPABILITY_REVISIONS.contains(&(revision, value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attributes_with_an_effect_in_a_container_are_kept() {
        for name in ["user.a", "user.overlayed", CAPABILITY] {
            assert!(is_kept(name), "{name}");
        }
        for name in [
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "security.selinux",
            "system.posix_acl_access",
        ] {
            assert!(!is_kept(name), "{name}");
        }
    }

    #[test]
    fn attributes_that_the_kernel_refuses_are_refused() {
        let mut capability = [0; 20];
        capability[3] = 2;
        assert_eq!(check(CAPABILITY, &capability), Ok(()));
        assert_eq!(check(CAPABILITY, &capability[..19]), Err(Errno::INVAL));
        assert_eq!(check("user.", b""), Err(Errno::INVAL));
        assert_eq!(check("user.a\0b", b""), Err(Errno::INVAL));
        assert_eq!(
            check(&format!("user.{}", "n".repeat(251)), b""),
            Err(Errno::RANGE)
        );
        assert_eq!(
            check("user.a", &vec![0; XATTR_BYTES + 1]),
            Err(Errno::TOOBIG)
        );
        assert_eq!(check("user.a", &vec![0; XATTR_BYTES]), Ok(()));
    }
}
