//! Bearer tokens: compared in constant time, never shown.

use std::{fmt, fs, io, path::Path};

use subtle::ConstantTimeEq;

/// Shortest token, in bytes; shorter ones could be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// Longest token, in bytes, so that it fits into a request's head.
const MAX_TOKEN_BYTES: usize = 1024;

/// A secret that a request must present.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Validates a token; surrounding white space is trimmed. The error does not show it.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// Reads a token from a file.
    ///
    /// # Errors
    /// The file cannot be read, or the token is invalid.
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

    /// Compares in constant time.
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }

    /// The secret, for requests to agents.
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
    fn a_token_is_trimmed_and_checked() {
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
    fn a_token_is_never_shown() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(!format!("{token:?}").contains("0123"));
        assert!(!Token::new("secret").unwrap_err().contains("secret"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Token::read(Path::new("/no/such/token")).unwrap_err();
        assert!(
            error.contains("/no/such/token") && error.contains("create it"),
            "{error}"
        );
    }
}
