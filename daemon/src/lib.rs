//! What the programs that run for ever have in common: how they write their log ([`log`]), and what they tell the service
//! manager ([`notify`]).

pub mod log;
pub mod notify;
