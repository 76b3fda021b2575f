//! Runs the fuzz targets on their corpus without a fuzzer: each file as it is, and with bytes changed, removed and added.
//! The changes are deterministic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/entries.rs"]
mod entries;

use std::{fs, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Variants of each file of the corpus.
const FORMS: u64 = 25;

/// A pseudo-random sequence (xorshift64).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn change(bytes: &mut Vec<u8>, sequence: &mut Sequence) {
    for _ in 0..=sequence.below(4) {
        let (at, other) = (sequence.below(bytes.len()), sequence.below(bytes.len()));
        match sequence.below(5) {
            _ if bytes.is_empty() => bytes.push(0),
            0 => bytes[at] ^= 1 << sequence.below(8),
            1 => bytes[at] = b"0179/.\"{}[]:\0\xff"[sequence.below(14)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at.min(other)..at.max(other).min(at.min(other) + 600))),
            _ => {
                let piece = bytes[at..(at + 512).min(bytes.len())].to_vec();
                bytes.splice(other..other, piece);
            }
        }
    }
}

/// Corrects the checksums of a tar's headers, since a wrong one is refused at once.
fn mend_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn drive(target: &str, entry: fn(&[u8]), mend: fn(&mut [u8])) {
    if rustix::process::geteuid().is_root() {
        // Keeps the mounts private.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&Path>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 4, "the corpus exists");
    for (number, file) in files.iter().enumerate() {
        let whole = fs::read(file).unwrap();
        entry(&whole);
        for form in 0..FORMS {
            let mut sequence = Sequence(0x9e37_79b9 + form * 7919 + number as u64);
            let mut bytes = whole.clone();
            change(&mut bytes, &mut sequence);
            mend(&mut bytes);
            entry(&bytes);
        }
    }
}

#[test]
fn archives() {
    drive("archive", entries::archive, mend_checksums);
}

#[test]
fn documents() {
    drive("documents", entries::documents, |_| {});
}

#[test]
fn layers() {
    drive("layer", entries::layer, mend_checksums);
}
