//! Every rule with the exact message that breaking it gives.

use std::path::Path;

use super::*;

/// A configuration of one controller and one worker, both on loopback, with `more` before its tables.
pub(crate) fn minimal(more: &str) -> Config {
    let text = format!(
        "{more}\n[[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n\
         [[topology]]\nkind = \"worker\"\nip = \"127.0.0.11\"\nname = \"w1\"\n"
    );
    Config::parse("ctl.toml", Path::new("/etc"), &text).unwrap()
}
