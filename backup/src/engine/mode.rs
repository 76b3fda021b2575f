//! Modes of files: the kernel's, and those of the repository's format, which are Go's.

const PERMISSIONS: u32 = 0o777;

/// Bits beside the permissions: the kernel's, Go's.
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// Types: the kernel's, Go's.
const TYPES: [(u32, u32); 6] = [
    (0o040_000, 1 << 31),
    (0o120_000, 1 << 27),
    (0o060_000, 1 << 26),
    (0o020_000, 1 << 26 | 1 << 21),
    (0o010_000, 1 << 25),
    (0o140_000, 1 << 24),
];

/// The format's mode of a file.
pub(super) fn to_go(mode: u32) -> u32 {
    let kind = TYPES.iter().find(|(kind, _)| mode & 0o170_000 == *kind);
    let special = SPECIAL.iter().filter(|(bit, _)| mode & bit != 0);
    let bits = kind.into_iter().chain(special).map(|(_, go)| go);
    bits.fold(mode & PERMISSIONS, |mode, bit| mode | bit)
}

/// The kernel's permissions and special bits of a mode of the format.
pub(super) fn from_go(mode: u32) -> u32 {
    let special = SPECIAL.iter().filter(|(_, go)| mode & go != 0);
    special.fold(mode & PERMISSIONS, |mode, (bit, _)| mode | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive() {
        for mode in [0o644, 0o4755, 0o2770, 0o1777, 0o7000, 0] {
            for kind in [0o100_000, 0o040_000, 0o010_000] {
                assert_eq!(from_go(to_go(kind | mode)), mode);
            }
        }
        assert_eq!(to_go(0o100_600), 0o600);
        assert_eq!(to_go(0o040_700), 1 << 31 | 0o700);
    }
}
