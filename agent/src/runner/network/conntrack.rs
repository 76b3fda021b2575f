//! How many connections the kernel keeps track of. All of a node's are tracked as soon as ports are forwarded, each for two minutes
//! after its end, and where the table is full new ones are dropped without a word: to users, the node hangs. By its own
//! measure Linux gives a machine of 1 GiB room for 8,192, which 70 short connections a second fill.

use std::{fs, io, path::Path};

/// `nf_conntrack_max` (Documentation/networking/nf_conntrack-sysctl.rst in Linux): of all network namespaces together.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Makes room for as many connections, where there is less. An entry takes about 320 bytes, and those alone that are in use.
///
/// # Errors
/// What the kernel says.
pub(super) fn make_room(connections: u64) -> io::Result<()> {
    raise(Path::new(MAX), connections)
}

fn raise(path: &Path, least: u64) -> io::Result<()> {
    let now = match fs::read_to_string(path) {
        Ok(text) => text,
        // Not tracked yet, or by a kernel that tracks nothing.
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
    fn there_is_never_less_room_than_before() {
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
