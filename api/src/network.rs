//! IPv4 networks in CIDR notation (RFC 4632).

use std::net::Ipv4Addr;

/// The bits of an address that a prefix of this length covers.
pub fn mask(prefix: u8) -> u32 {
    let others = 32_u32.saturating_sub(prefix.into());
    u32::MAX.checked_shl(others).unwrap_or(0)
}

/// Checks that a network has no bits beyond its prefix. `text` is how the user has written it.
///
/// # Errors
/// It has some. The message has the network without them.
pub fn check_host_bits(text: &str, network: Ipv4Addr, prefix: u8) -> Result<(), String> {
    let masked = Ipv4Addr::from_bits(network.to_bits() & mask(prefix));
    match masked == network {
        true => Ok(()),
        false => Err(format!(
            "{text:?} has bits beyond its prefix: write \"{masked}/{prefix}\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_bits_of_their_prefix() {
        let masks = [0, 1, 16, 31, 32].map(mask);
        assert_eq!(masks, [0, 1 << 31, 0xffff_0000, 0xffff_fffe, u32::MAX]);
    }

    #[test]
    fn bits_beyond_the_prefix_are_refused() {
        let check = |last, prefix| check_host_bits("x", Ipv4Addr::new(10, 0, 0, last), prefix);
        check(0, 24).unwrap();
        check(7, 32).unwrap();
        let error = check(7, 24).unwrap_err();
        assert_eq!(
            error,
            "\"x\" has bits beyond its prefix: write \"10.0.0.0/24\""
        );
    }
}
