use super::*;

/// Compared with what `nft` 1.0.6 sends as `NFTA_SET_ELEM_LIST_ELEMENTS` (seen by strace).
#[test]
fn elements_are_encoded_as_by_nft() {
    let attributes = |add, element| {
        let elements = [Change { add, element }.attributes()];
        bytes(&[nested(NFTA_SET_ELEM_LIST_ELEMENTS, &elements)])
    };
    let forward = Element::Forward((Transport::Tcp, 20000), "172.31.0.2:8080".parse().unwrap());
    assert_eq!(
        attributes(true, forward),
        b"\x24\x00\x03\x80\x20\x00\x01\x80\x0c\x00\x01\x80\x06\x00\x01\x00\x4e\x20\x00\x00\
              \x10\x00\x02\x80\x0c\x00\x01\x00\xac\x1f\x00\x02\x1f\x90\x00\x00"
    );
    assert_eq!(
        attributes(false, forward),
        b"\x14\x00\x03\x80\x10\x00\x01\x80\x0c\x00\x01\x80\x06\x00\x01\x00\x4e\x20\x00\x00"
    );
    assert_eq!(
        attributes(true, Element::Sender("172.31.0.2".parse().unwrap())),
        b"\x1c\x00\x03\x80\x18\x00\x01\x80\x14\x00\x01\x80\x10\x00\x01\x00\
              \x02\x74\xac\x1f\x00\x02\x00\x00\xac\x1f\x00\x02"
    );
}

#[test]
fn elements_are_displayed_in_the_syntax_of_nft() {
    let text = |element: Element| format!("{}: {element}", element.set());
    let address = "10.0.0.1:7070".parse().unwrap();
    assert_eq!(
        text(Element::Forward((Transport::Tcp, 1), address)),
        "ports: 1 : 10.0.0.1 . 7070"
    );
    assert_eq!(
        text(Element::Forward((Transport::Udp, 1), address)),
        "udp_ports: 1 : 10.0.0.1 . 7070"
    );
    assert_eq!(text(Element::Api(address)), "apis: 10.0.0.1 . 7070");
    assert_eq!(
        text(Element::Sender(*address.ip())),
        "senders: 02:74:0a:00:00:01 . 10.0.0.1"
    );
}
