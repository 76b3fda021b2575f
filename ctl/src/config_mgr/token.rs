//! Bearer tokens: read, compared in constant time, never shown.

use std::{fmt, fs, io, path::Path};

use subtle::ConstantTimeEq;

/// Fewest bytes of a token; shorter ones could be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// Most bytes of a token, so that it fits into a request's head.
const MAX_TOKEN_BYTES: usize = 1024;

/// A secret that a request must present.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as written by the sysadmin; white space around it does not count. The error says what is wrong with it
    /// without showing it.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < MIN_TOKEN_BYTES {
            return Err(format!(
                "the token is too short: use at least {MIN_TOKEN_BYTES} characters, for example of `openssl rand -hex 32`"
            ));
        }
        if text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!(
                "the token cannot be sent: use at most {MAX_TOKEN_BYTES} ASCII characters without spaces"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The token in a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => ": create it, or give the token itself",
                _ => "",
            };
            format!("cannot read {}: {error}{advice}", path.display())
        })?;
        Self::new(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// Whether a request that presents `candidate` may pass; takes as long whatever differs.
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }

    /// The secret itself, to be presented to an agent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_must_be_long_and_sendable() {
        let token = Token::new("  0123456789abcdef\n").unwrap();
        assert!(token.matches("0123456789abcdef"));
        assert!(!token.matches("0123456789abcdeF"));
        assert!(!token.matches(""));
        assert!(
            Token::new("0123456789abcde")
                .unwrap_err()
                .contains("too short")
        );
        assert!(
            Token::new("0123456789 abcdef")
                .unwrap_err()
                .contains("without spaces")
        );
    }

    #[test]
    fn it_does_not_show_itself() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(!format!("{token:?}").contains("0123"));
        assert!(!Token::new("secret").unwrap_err().contains("secret"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Token::read(Path::new("/no/such/token")).unwrap_err();
        assert!(
            error.contains("/no/such/token") && error.contains("create it"),
            "{error}"
        );
    }
}
