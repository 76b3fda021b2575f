//! What is stored: a tree of files, or a stream.

mod stream;
mod tree;

use std::sync::{Arc, Mutex};

use super::control::lock;
use crate::{Class, Failure};

pub(super) use stream::StreamSource;
pub(super) use tree::{ROOT, TreeSource, handle};

/// What went wrong with the source. rustic_core leaves out what cannot be read, and only logs it.
#[derive(Debug, Clone)]
pub(super) struct Problems {
    shared: Arc<Mutex<Shared>>,
    limit: usize,
    skip_unreadable: bool,
}

#[derive(Debug, Default)]
struct Shared {
    fatal: Option<Failure>,
    warnings: Vec<String>,
    total: u64,
    /// Files that were announced.
    announced: u64,
    /// Announced files that are left out.
    left_out: u64,
}

impl Problems {
    pub(super) fn new(limit: u32, skip_unreadable: bool) -> Self {
        Self {
            shared: Arc::default(),
            limit: limit as usize,
            skip_unreadable,
        }
    }

    /// Something that users should know, and that is no reason to fail.
    fn warn(&self, warning: String) {
        let mut shared = lock(&self.shared);
        shared.total += 1;
        if shared.warnings.len() < self.limit {
            shared.warnings.push(warning);
        }
    }

    /// Something that cannot be read: a reason to fail unless the request says otherwise.
    fn unreadable(&self, problem: String) {
        match self.skip_unreadable {
            true => self.warn(problem),
            false => self.fail(Failure::new(
                Class::Source,
                format!("{problem}: no snapshot is saved"),
            )),
        }
    }

    /// A reason to fail; the first one counts.
    fn fail(&self, failure: Failure) {
        lock(&self.shared).fatal.get_or_insert(failure);
    }

    fn announce(&self) {
        lock(&self.shared).announced += 1;
    }

    fn leave_out(&self) {
        lock(&self.shared).left_out += 1;
    }

    fn failed(&self) -> bool {
        lock(&self.shared).fatal.is_some()
    }

    /// # Errors
    /// The first reason to fail.
    pub(super) fn check(&self) -> Result<(), Failure> {
        lock(&self.shared).fatal.clone().map_or(Ok(()), Err)
    }

    /// How many files the snapshot must have.
    pub(super) fn expected(&self) -> u64 {
        let shared = lock(&self.shared);
        shared.announced - shared.left_out
    }

    /// The warnings, and how many there were.
    pub(super) fn warnings(&self) -> (Vec<String>, u64) {
        let shared = lock(&self.shared);
        (shared.warnings.clone(), shared.total)
    }
}
