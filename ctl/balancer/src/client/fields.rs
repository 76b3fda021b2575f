//! The headers that decide where a request ends.

use super::{edits::Edit, framing::Malformed};

/// The name under which hyper sees `Expect`: hyper would answer `100-continue` itself, before a process has.
pub const HIDDEN_EXPECT: &str = "x-tucano-expect";

/// The length of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Sized(u64),
    /// Chunks.
    Chunked,
    /// No body; the client wants to switch protocols.
    Upgrade,
}

/// What the headers so far say about the length.
#[derive(Debug, Default)]
pub struct Fields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Fields {
    /// Takes one header line without its end. Returns what hyper must see instead of some of it.
    pub fn add(&mut self, line: &[u8]) -> Result<Option<Edit>, Malformed> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Malformed::HeaderLine)?);
        let value = value[1..].trim_ascii();
        if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_text) {
            return Err(Malformed::HeaderLine);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Malformed::Length)?;
            match self.length.replace(length) {
                None => {}
                Some(_) => return Err(Malformed::Length),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferCoding);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if name.eq_ignore_ascii_case(b"expect") {
            return Ok(Some(Edit::new(0, name.len(), HIDDEN_EXPECT.into())));
        } else if name.eq_ignore_ascii_case(HIDDEN_EXPECT.as_bytes()) {
            return Err(Malformed::HeaderLine);
        }
        Ok(None)
    }

    /// The length of the body, after the last header.
    pub fn length(&self, is_http_11: bool) -> Result<Length, Malformed> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Malformed::Length),
            (true, None) if !is_http_11 => Err(Malformed::TransferCoding),
            (true, None) => Ok(Length::Chunked),
            (false, Some(len)) if len > 0 => Ok(Length::Sized(len)),
            (false, _) if self.upgrade && is_http_11 => Ok(Length::Upgrade),
            (false, _) => Ok(Length::Sized(0)),
        }
    }
}

/// RFC 9110, section 5.6.2.
pub fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// RFC 9110, section 5.5.
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

/// A length in bytes: digits and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and no sign or space gets through.
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    is_number.then(|| digits.iter().fold(0, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(
            decimal(b"999999999999999999"),
            Some(999_999_999_999_999_999)
        );
        for bad in [
            "",
            "1000000000000000000",
            "-1",
            "+1",
            "1 1",
            "0x1",
            "1.",
            "\u{661}",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
