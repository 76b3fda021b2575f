//! What the sample services share: a small HTTP/1.1 server on threads, and how a program in a
//! container behaves: it listens on `$PORT`, says who it is, and ends cleanly on SIGTERM.
//!
//! - [`server`]: accepts connections, one thread each, and stops gracefully;
//! - [`http`]: one request and its answer;
//! - [`hello`]: the answers that every sample service gives;
//! - [`settings`]: what the environment says.

pub mod hello;
pub mod http;
pub mod server;
pub mod settings;
