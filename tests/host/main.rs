//! One host at a time: bad input to the controller, and `tucano dev`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod dev;
mod upload;
