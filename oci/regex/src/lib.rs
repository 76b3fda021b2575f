//! `regex-lite` under the name of `regex`, for `oci-spec`: it has two expressions, of ASCII, and asks for `regex` with the tables of
//! all of Unicode. Those are a tenth of a program, and two thirds of the addresses that are relocated whenever a container is
//! started (`docs/decisions/0077`).

pub use regex_lite::*;
