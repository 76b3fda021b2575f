//! What an unpacked layer says about itself, in an attribute of its root: what the image's other layers have to add to it.

use std::fmt;

/// The value of [`super::xattrs::MARK`] on a layer's root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RootMark {
    /// Whether the root has no entry of its own.
    pub(crate) is_implied: bool,
    /// Whether the root hides all lower layers.
    pub(crate) is_opaque: bool,
    /// How many directories may have no entry of their own.
    pub(crate) implied_directories: u64,
}

impl RootMark {
    /// `None` for an unknown text.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut mark = Self::default();
        for word in text.split(' ') {
            match word {
                "root" => {}
                "implied" => mark.is_implied = true,
                "opaque" => mark.is_opaque = true,
                number => mark.implied_directories = number.parse().ok()?,
            }
        }
        text.starts_with("root").then_some(mark)
    }
}

impl fmt::Display for RootMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("root")?;
        if self.is_implied {
            f.write_str(" implied")?;
        }
        if self.is_opaque {
            f.write_str(" opaque")?;
        }
        write!(f, " {}", self.implied_directories)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip() {
        for mark in [
            RootMark::default(),
            RootMark {
                is_implied: true,
                is_opaque: true,
                implied_directories: 7,
            },
        ] {
            assert_eq!(RootMark::parse(mark.to_string().as_bytes()), Some(mark));
        }
        for bad in [&b""[..], b"implied", b"root x", b"\xff"] {
            assert_eq!(RootMark::parse(bad), None, "{bad:?}");
        }
    }
}
