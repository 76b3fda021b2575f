//! Counters without contention: each thread writes its own, and a reader adds them up.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The position of a thread among those that serve clients, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thread(pub usize);

/// One value for each thread, on cache lines of its own.
#[derive(Debug)]
pub struct PerThread<T>(Box<[Padded<T>]>);

/// No two of them share a cache line, nor the pair of lines that processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerThread<T> {
    /// For `threads` threads, at least one.
    pub fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Padded::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// The value of `thread`.
    pub fn of(&self, thread: Thread) -> &T {
        &self.0[thread.0].0
    }

    /// The values of all threads.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// A number that one thread writes and others read: writing it needs no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// A number that goes up and down, written by one thread.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Count {
    /// Adds one. Must be called by the thread that it belongs to.
    pub fn increase(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The number.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Level {
    /// Adds `change`. Must be called by the thread that it belongs to.
    pub fn add(&self, change: i64) {
        self.0.store(self.0.load(Relaxed) + change, Relaxed);
    }

    /// The number.
    pub fn read(&self) -> i64 {
        self.0.load(Relaxed)
    }
}
