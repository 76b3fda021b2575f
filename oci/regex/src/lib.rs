//! `regex-lite` under the name `regex`, for `oci-spec`: it uses two ASCII expressions but depends on `regex` with its
//! Unicode tables. Those are a tenth of the program, and two thirds of the relocations that each start of a container
//! performs (`docs/decisions/0077`).

pub use regex_lite::*;
