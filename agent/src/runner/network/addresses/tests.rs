use super::*;

fn allocator(subnet: &str, ports: &str) -> Allocator {
    Allocator::new(
        subnet.parse().unwrap(),
        PortRange::try_from(ports.to_owned()).unwrap(),
    )
}

#[test]
fn the_bridge_has_the_first_address_and_the_last_is_for_broadcasts() {
    let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
    assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
    let hosts: Vec<_> = subnet.hosts().collect();
    assert_eq!(hosts.len(), 5);
    assert_eq!(hosts[0], Ipv4Addr::new(10, 1, 2, 2));
    assert_eq!(hosts[4], Ipv4Addr::new(10, 1, 2, 6));
}

#[test]
fn leases_do_not_overlap_and_are_reusable_after_release() {
    let mut allocator = allocator("10.1.2.0/29", "41000-41400");
    let leases: Vec<_> = (0..5)
        .map(|_| allocator.lease(None, Transport::Tcp).unwrap())
        .collect();
    for (a, b) in leases.iter().zip(&leases[1..]) {
        assert!(a.ip != b.ip && a.node_port != b.node_port);
        assert!(b.ids_base.abs_diff(a.ids_base) >= IDS_PER_PROCESS);
    }
    let full = allocator.lease(None, Transport::Tcp).unwrap_err();
    assert!(full.to_string().contains("10.1.2.0/29"), "{full}");
    allocator.release(leases[1]);
    let again = allocator.lease(None, Transport::Tcp).unwrap();
    assert_eq!(again.ip, leases[1].ip);
    assert_ne!(
        again.node_port, leases[1].node_port,
        "ports are reused late"
    );
}

#[test]
fn a_port_of_another_program_is_skipped() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut allocator = allocator("10.1.2.0/24", &format!("{port}-{port}"));
    let full = allocator.lease(None, Transport::Tcp).unwrap_err();
    assert!(
        full.to_string()
            .contains(&format!("no free port in {port}-{port}")),
        "{full}"
    );
    drop(taken);
    assert_eq!(
        allocator.lease(None, Transport::Tcp).unwrap().node_port,
        port
    );
    assert!(
        std::net::TcpListener::bind(("127.0.0.1", port)).is_err(),
        "it is reserved"
    );
}

#[test]
fn a_reserved_address_is_leased_only_by_name() {
    let mut allocator = allocator("10.1.2.0/29", "41800-41900");
    let reserved = allocator.reserve(4).unwrap();
    assert_eq!(allocator.reserve(4), None, "fewer are free");
    assert_ne!(allocator.lease(None, Transport::Tcp).unwrap().ip, reserved);
    assert_eq!(
        allocator.lease(Some(reserved), Transport::Tcp).unwrap().ip,
        reserved
    );
    let other = allocator.reserve(0).unwrap();
    allocator.unreserve(other);
    assert_eq!(allocator.lease(None, Transport::Tcp).unwrap().ip, other);
}

#[test]
fn the_search_for_ports_wraps_around() {
    let mut allocator = allocator("10.1.2.0/24", "41500-41509");
    let first = allocator.lease(None, Transport::Tcp).unwrap();
    for _ in 0..40 {
        let lease = allocator.lease(None, Transport::Tcp).unwrap();
        allocator.release(lease);
    }
    assert!(allocator.conflicts(first));
}

#[test]
fn an_adopted_lease_is_not_allocated_again() {
    let mut allocator = allocator("10.1.2.0/29", "41600-41700");
    let lease = Lease {
        ip: Ipv4Addr::new(10, 1, 2, 2),
        node_port: 41600,
        ids_base: FIRST_ID,
    };
    assert!(!allocator.conflicts(lease));
    allocator.adopt(lease, Transport::Tcp);
    assert!(allocator.conflicts(lease));
    let other = allocator.lease(None, Transport::Tcp).unwrap();
    assert!(other.ip != lease.ip && other.ids_base != lease.ids_base);
    let outside = Lease {
        ip: Ipv4Addr::new(10, 9, 9, 9),
        ..other
    };
    allocator.release(other);
    assert!(allocator.conflicts(outside));
}

#[test]
fn further_ports_are_freed_with_their_lease() {
    let mut allocator = allocator("10.1.2.0/24", "41900-41902");
    let lease = allocator.lease(None, Transport::Tcp).unwrap();
    let udp = allocator.further_port(lease, Transport::Udp).unwrap();
    let tcp = allocator.further_port(lease, Transport::Tcp).unwrap();
    assert!(std::net::UdpSocket::bind(("127.0.0.1", udp)).is_err());
    assert!(std::net::TcpListener::bind(("127.0.0.1", tcp)).is_err());
    allocator.further_port(lease, Transport::Tcp).unwrap_err();
    assert!(
        !allocator.adopt_further(lease, udp, Transport::Udp),
        "it is taken"
    );
    allocator.release(lease);
    let again = allocator.lease(None, Transport::Tcp).unwrap();
    assert!(allocator.adopt_further(again, udp, Transport::Udp));
}
