//! What the balancer decides, without IO: time and bytes are passed in.
//!
//! - [`table`]: the compiled routes; [`target`], [`path`]: what a request asks for
//! - [`backend`]: one process; [`choose`]: whose turn it is; [`health`]: who is excluded for a while; [`retry`]: what may be sent again
//! - [`waiting`]: how much may wait; [`counters`]: counters of each thread; [`refusal`]: the balancer's own answers

pub mod backend;
pub mod choose;
pub mod counters;
pub mod health;
pub mod path;
pub mod refusal;
pub mod retry;
pub mod table;
pub mod target;
pub mod waiting;
