//! Finds blocks of zeros, which become holes of files.

/// Size of a block that may become a hole.
pub(crate) const HOLE_BYTES: usize = 4096;

/// Splits bytes into runs of blocks that are all zeros, and runs of other blocks. The last block may be shorter, and
/// counts as zeros only if it is whole.
pub(crate) fn runs(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut blocks = rest.chunks(HOLE_BYTES);
        let first = is_zero(blocks.next()?);
        let more: usize = blocks
            .take_while(|block| is_zero(block) == first)
            .map(<[u8]>::len)
            .sum();
        let (run, after) = rest.split_at((rest.len().min(HOLE_BYTES) + more).min(rest.len()));
        rest = after;
        Some(run)
    })
}

/// Whether a block is whole and all zeros.
pub(crate) fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];
    block == ZEROS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_split_at_the_edges_of_zero_blocks() {
        let lengths = |bytes: &[u8]| runs(bytes).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(b""), [0; 0]);
        assert_eq!(lengths(&[0; 3 * HOLE_BYTES]), [3 * HOLE_BYTES]);
        assert_eq!(lengths(&[0; HOLE_BYTES + 1]), [HOLE_BYTES, 1]);
        assert_eq!(lengths(&[1; 2 * HOLE_BYTES + 5]), [2 * HOLE_BYTES + 5]);
        let mut mixed = vec![0; 5 * HOLE_BYTES];
        mixed[2 * HOLE_BYTES] = 1;
        assert_eq!(
            lengths(&mixed),
            [2 * HOLE_BYTES, HOLE_BYTES, 2 * HOLE_BYTES]
        );
    }
}
