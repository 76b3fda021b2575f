//! Common to the daemons: logging ([`log`]), service manager notifications ([`notify`]) and limits of the process ([`limits`]).

pub mod limits;
pub mod log;
pub mod notify;
