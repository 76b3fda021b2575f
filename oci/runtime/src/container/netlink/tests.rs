use super::*;

#[test]
fn the_kernel_knows_the_loopback_device() {
    let netlink = Netlink::open().unwrap();
    assert_eq!(netlink.index("lo").unwrap(), 1);
    let missing = netlink.index("none-such").unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    // Those of the loopback device are not global.
    assert_eq!(netlink.addresses(1).unwrap(), []);
}

#[test]
fn only_permanent_global_addresses_of_the_device_move() {
    let message = |scope: u8, flags: u32, index: i32| {
        let mut request = Request::new(NEW_ADDRESS, 0)
            .bytes(&[2, 24, 0, scope])
            .bytes(&index.to_ne_bytes());
        request.attribute(LOCAL, &[10, 0, 0, 1]);
        request.attribute(3, b"label\0");
        request.attribute(ADDRESS_FLAGS, &flags.to_ne_bytes());
        request.body
    };
    let parsed = Address::parse(&message(0, PERMANENT, 7), 7).unwrap();
    assert_eq!((parsed.family, parsed.prefix), (2, 24));
    assert_eq!(parsed.parts, [(LOCAL, vec![10, 0, 0, 1])]);
    assert_eq!(Address::parse(&message(0, 0, 7), 7), None);
    assert_eq!(Address::parse(&message(253, PERMANENT, 7), 7), None);
    assert_eq!(Address::parse(&message(0, PERMANENT, 8), 7), None);
    for cut in 0..message(0, PERMANENT, 7).len() {
        drop(Address::parse(&message(0, PERMANENT, 7)[..cut], 7));
    }
}

#[test]
fn malformed_messages_end_the_list() {
    let all: [&[u8]; 3] = [&[0; 3], &[0; 16], &[255; 16]];
    for malformed in all {
        assert_eq!(Messages(malformed).count(), 0, "{malformed:?}");
        assert_eq!(Attributes(malformed).count(), 0, "{malformed:?}");
    }
}
