//! IPv4 address ranges in CIDR notation (RFC 4632).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::Deserialize;
use tucano_api::network::check_host_bits;

/// An address, or all addresses with the same prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (network, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let parsed = (network.parse::<Ipv4Addr>(), prefix.parse::<u8>());
        let (Ok(network), Ok(prefix @ 0..=32)) = parsed else {
            return Err(format!(
                "{text:?} is not an IPv4 address or range: write for example \"10.0.0.7\" or \"10.0.0.0/24\""
            ));
        };
        check_host_bits(text, network, prefix)?;
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_are_parsed() {
        for (text, expected) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), expected);
        }
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.1/24",
            "10.0.0.0/",
            "fd00::1",
            "1.2.3.4/-1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
