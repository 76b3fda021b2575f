//! Pulling from and pushing to registries, over broken connections, with credentials, and against hostile answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authentication;
mod broken_connection;
mod debian;
mod kit;
mod pulling;
mod pushing;
