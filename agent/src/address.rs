//! The node's own address, as the controller sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The local address of the route to the controller. No packet is sent.
///
/// # Errors
/// An invalid URL, a host name that does not resolve, or no route to it.
pub(crate) fn local_address(controller: &str) -> std::io::Result<IpAddr> {
    let url = reqwest::Url::parse(controller).map_err(std::io::Error::other)?;
    let addresses = url.socket_addrs(|| None)?;
    let address = addresses
        .first()
        .ok_or_else(|| std::io::Error::other("the controller's name has no address"))?;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

/// Whether the URL's host is the loopback interface, without asking a name server.
pub(crate) fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    let host = url
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_address_follows_the_route_to_the_controller() {
        let ip = local_address("http://127.0.0.1:7070").unwrap();
        assert!(ip.is_loopback(), "{ip}");
    }

    #[test]
    fn loopback_urls_are_recognised_by_name_and_by_address() {
        for (url, expected) in [
            ("http://localhost:7070", true),
            ("http://127.9.9.9", true),
            ("https://[::1]:7070", true),
            ("https://[::ffff:127.0.0.1]:7070", true),
            ("http://10.0.0.1:7070", false),
            ("not a url", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }
}
