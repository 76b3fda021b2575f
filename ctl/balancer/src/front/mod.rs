//! Client connections: accepted, kept within limits, read and written.
//!
//! ```text
//!  accept ──► idle ──bytes──► serving ──answered──► idle
//!              │                 │ └──101──► tunnel ──► closed
//!              │ time, recycled, │
//!              ▼ stopped         ▼ malformed, close
//!            closed ◄────────  linger
//! ```

pub mod accept;
pub mod admission;
pub mod client;
pub mod connection;
pub mod state;
