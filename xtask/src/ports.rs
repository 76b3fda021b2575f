//! Whether the demo's addresses are free, before anything is built for it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::error::{Error, Result};

/// The loopback address with the wanted port, or with the default one. Where that is in use and `may_choose` is set, a free one
/// takes the default's place.
///
/// # Errors
/// If the port is in use: the message names the flag that chooses another.
pub fn free(wanted: Option<u16>, default: u16, flag: &str, may_choose: bool) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.unwrap_or(default)));
    match TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(_) if wanted.is_none() && may_choose => {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .map_err(|error| Error::new(format!("no port is free: {error}")))?;
            eprintln!("xtask: {address} is in use; {free} takes its place");
            Ok(free)
        }
        Err(error) => Err(Error::new(format!(
            "cannot listen on {address}: {error}; choose another port with {flag}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_or_replaced() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = free(None, port, "--api-port", false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("choose another port with --api-port"),
            "{error}"
        );
        assert!(free(Some(port), 1, "--api-port", true).is_err());
        assert_ne!(free(None, port, "--api-port", true).unwrap().port(), port);
    }
}
