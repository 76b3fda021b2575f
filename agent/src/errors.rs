//! Error messages for users.

use std::error::Error;

/// The first cause of an error, with advice where the cause is known to have one.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
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
    fn the_first_cause_is_returned_with_advice_for_certificates() {
        let error = Outer(std::io::Error::other("the cause"));
        assert_eq!(root_cause(&error), "the cause");
        assert_eq!(root_cause(&std::io::Error::other("alone")), "alone");
        let unknown = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        assert!(root_cause(&unknown).contains("ca_file"));
    }
}
