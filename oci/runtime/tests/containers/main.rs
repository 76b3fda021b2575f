//! Real containers: what they can and cannot do, how they end, and what remains of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod exec;
mod harness;
mod hostile;
mod isolation;
mod life;
mod limits;
mod ready;
mod sandbox;
mod session;
mod user_namespace;
