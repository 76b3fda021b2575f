//! On a kernel of their own: what servers have that this machine may lack, cgroup v2 alone, and what they may lack.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod emulated;
mod guest;
mod labels;
mod life;
mod load;
mod machines;
mod node;
mod packages;
mod runtime;
mod systemd;
mod volumes;
