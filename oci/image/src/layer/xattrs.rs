//! Which extended attributes of a layer's entries are kept, and which are invalid.

use rustix::io::{Errno, Result};

use crate::limits::XATTR_BYTES;

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

/// Refuses attributes that the kernel refuses on any file system.
pub(crate) fn check(name: &str, value: &[u8]) -> Result<()> {
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
