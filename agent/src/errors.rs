//! Telling people what went wrong.

use std::error::Error;

/// The first cause, with what to do where it is known.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let text = tucano_api::error::innermost(error).to_string();
    if text.starts_with("invalid peer certificate") {
        return format!(
            "{text}; ca_file has to be a copy of this controller's ca.pem, and `controller` a name or address that its certificate \
             is for (`names` in [api] of ctl.toml adds some)"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_first_cause_is_told() {
        let error = Outer(std::io::Error::other("the cause"));
        assert_eq!(innermost(&error), "the cause");
        assert_eq!(innermost(&std::io::Error::other("alone")), "alone");
        let unknown = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        assert!(innermost(&unknown).contains("ca_file"));
    }
}
