use super::*;

#[test]
fn addresses_are_in_the_subnet() {
    let subnet: Subnet = "10.99.7.0/24".parse().unwrap();
    assert_eq!(subnet.to_string(), "10.99.7.0/24");
    assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 99, 7, 1));
    assert_eq!(subnet.address(11), Ipv4Addr::new(10, 99, 7, 11));
    for (ip, fits) in [
        ("10.99.7.2", true),
        ("10.99.7.254", true),
        ("10.99.7.1", false),
        ("10.99.7.0", false),
        ("10.99.7.255", false),
        ("10.99.8.2", false),
    ] {
        assert_eq!(subnet.has_host(ip.parse().unwrap()), fits, "{ip}");
    }
}

#[test]
fn invalid_subnets_are_refused() {
    for text in [
        "",
        "10.99.0.0",
        "10.99.0.1/24",
        "10.99.0.0/30",
        "10.0.0.0/7",
        "x/24",
    ] {
        assert!(text.parse::<Subnet>().is_err(), "{text}");
    }
}
