//! Real containers: what they can and cannot do, how they end, and what remains of them.

mod harness;
mod isolation;
