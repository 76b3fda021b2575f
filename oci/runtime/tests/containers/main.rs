//! Supervised containers: isolation, exit and clean-up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod exec;
mod harness;
mod hostile;
mod images;
mod init;
mod isolation;
mod life;
mod limits;
mod sandbox;
mod session;
mod standby;
mod user_namespace;
