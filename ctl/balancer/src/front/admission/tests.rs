use super::*;

fn admit(admission: &Arc<Admission>, address: &str) -> Admitted {
    let state = ConnectionState::new();
    // Busy, so that it cannot be recycled.
    state.begin();
    admission.admit(address.parse().unwrap(), state, 2)
}

#[test]
fn connections_are_limited_by_address_and_by_ipv6_network() {
    let admission = Arc::<Admission>::default();
    let first = admit(&admission, "10.0.0.1");
    let second = admit(&admission, "::ffff:10.0.0.1");
    assert!(first.is_within_limit && second.is_within_limit);
    assert!(!admit(&admission, "10.0.0.1").is_within_limit);
    assert!(admit(&admission, "10.0.0.2").is_within_limit);
    drop(first);
    assert!(admit(&admission, "10.0.0.1").is_within_limit);

    let network = [
        admit(&admission, "2001:db8::1"),
        admit(&admission, "2001:db8::ffff:1"),
    ];
    assert!(!admit(&admission, "2001:db8::2").is_within_limit);
    assert!(admit(&admission, "2001:db8:0:1::2").is_within_limit);
    drop((network, second));
    assert!(admission.lock().by_address.is_empty());
}
