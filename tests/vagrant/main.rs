//! The cluster that `vagrant up` makes: its files, and the same provisioning on machines of the test's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod files;
mod scripts;
