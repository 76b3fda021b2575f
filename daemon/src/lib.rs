//! Common to the daemons: logging ([`log`]) and service manager notifications ([`notify`]).

pub mod log;
pub mod notify;
