//! IPv4 subnets in CIDR notation (RFC 4632).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use crate::Error;

/// The addresses of a virtual network, such as `10.99.0.0/24`. The switch has the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The switch's address: the first one.
    pub fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The `n`-th address, wrapping round at the end of the subnet; hosts begin at 2.
    pub fn address(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | (n & self.host_mask()))
    }

    /// Whether a host may have this address: it is in the subnet, and not the network, broadcast or switch address.
    pub fn has_host(self, ip: Ipv4Addr) -> bool {
        let host = ip.to_bits() & self.host_mask();
        ip.to_bits() & !self.host_mask() == self.network.to_bits()
            && host > 1
            && host < self.host_mask()
    }

    /// The host part of an address.
    pub(crate) fn host_part(self, ip: Ipv4Addr) -> u32 {
        ip.to_bits() & self.host_mask()
    }

    fn host_mask(self) -> u32 {
        u32::MAX >> self.prefix
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 99, 0, 0),
            prefix: 24,
        }
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidSubnet(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let subnet = Self {
            network: network.parse().map_err(|_| invalid())?,
            prefix: prefix.parse().map_err(|_| invalid())?,
        };
        let usable =
            (8..=29).contains(&subnet.prefix) && subnet.network.to_bits() & subnet.host_mask() == 0;
        usable.then_some(subnet).ok_or_else(invalid)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests;
