//! The size of the kernel's connection tracking table. Port forwarding tracks all of the node's connections, each until two
//! minutes after its end, and a full table silently drops new ones: clients see a node that hangs. Linux sizes the table by
//! memory: 8,192 entries on a machine of 1 GiB, which 70 short connections per second fill.

use std::{fs, io, path::Path};

/// `nf_conntrack_max` (Documentation/networking/nf_conntrack-sysctl.rst in Linux): of all network namespaces together.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Raises the table's size to at least `connections`. Only used entries take memory, about 320 bytes each.
///
/// # Errors
/// The setting cannot be read or written.
pub(super) fn enlarge(connections: u64) -> io::Result<()> {
    raise(Path::new(MAX), connections)
}

fn raise(path: &Path, least: u64) -> io::Result<()> {
    let now = match fs::read_to_string(path) {
        Ok(text) => text,
        // Connection tracking is not loaded, or not part of the kernel.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_enough = now.trim().parse().is_ok_and(|now: u64| now >= least);
    if is_enough {
        return Ok(());
    }
    fs::write(path, least.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_never_shrunk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nf_conntrack_max");
        raise(&path, 100).unwrap();
        assert!(!path.exists());
        fs::write(&path, "8192\n").unwrap();
        raise(&path, 100_000).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "100000");
        raise(&path, 8192).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "100000");
    }
}
