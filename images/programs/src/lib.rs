//! What the sample services share: a small HTTP/1.1 server on threads, and how a program in a
//! container behaves: it listens on `$PORT`, reports its identity, and ends cleanly on SIGTERM.
//!
//! - [`server`]: accepts connections, one thread each, and stops gracefully;
//! - [`http`]: one request and its answer;
//! - [`hello`]: the answers that every sample service gives;
//! - [`settings`]: the environment.

pub mod hello;
pub mod http;
pub mod server;
pub mod settings;
