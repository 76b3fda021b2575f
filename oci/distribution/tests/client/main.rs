//! Pulling from and pushing to registries, over connections that are cut, with credentials, and against hostile answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authentication;
mod cut;
mod debian;
mod kit;
mod pulling;
mod pushing;
