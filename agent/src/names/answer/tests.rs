use tucano_api::{names::NamedPort, service::Protocol};

use super::*;

fn service(name: &str, last: u8, slots: u8) -> Arc<NamedService> {
    let port = |name: &str, port, protocol| NamedPort {
        name: name.parse().unwrap(),
        port,
        protocol,
    };
    Arc::new(NamedService {
        leaving: Vec::new(),
        service: name.parse().unwrap(),
        address: [100, 80, 0, last].into(),
        slots: (1..=slots)
            .map(|slot| [100, 80, last, slot].into())
            .collect(),
        nearest: false,
        ports: vec![
            port("http", 8080, Protocol::Http),
            port("dns", 53, Protocol::Udp),
        ],
        endpoints: Vec::new(),
    })
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn decision(name: &str, kind: RecordType) -> Decision {
    let visible = [service("db", 1, 2), service("web", 2, 0)];
    let bytes = question(name, kind).to_vec().unwrap();
    decide(&bytes, &visible, Some(ServiceSubnet::default()))
}

fn looked_up(name: &str, kind: RecordType) -> Message {
    match decision(name, kind) {
        Decision::Answer(answer) => {
            // As a client reads it.
            Message::from_vec(&encode(&answer, 512).unwrap()).unwrap()
        }
        other => panic!("{name}: {other:?}"),
    }
}

/// The answer's code, its records, and how long it may be remembered that there is none.
fn shown(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Option<u32>) {
    let message = looked_up(name, kind);
    assert_eq!((message.metadata.id, message.queries.len()), (7, 1));
    assert!(message.metadata.recursion_available && !message.metadata.truncation);
    let records = message.answers.iter();
    let records = records
        .map(|it| format!("{} {}", it.name, it.data))
        .collect();
    let negative = message.authorities.iter().find_map(|it| match &it.data {
        RData::SOA(soa) => Some(soa.minimum.min(it.ttl)),
        _ => None,
    });
    (message.metadata.response_code, records, negative)
}

#[test]
fn names_of_needed_services_and_their_slots_have_addresses() {
    for (name, expected) in [
        ("db.internal.", "db.internal. 100.80.0.1"),
        ("DB.Internal.", "DB.Internal. 100.80.0.1"),
        ("db.", "db. 100.80.0.1"),
        ("1.db.internal.", "1.db.internal. 100.80.1.1"),
        ("2.db.internal.", "2.db.internal. 100.80.1.2"),
    ] {
        let (code, records, _) = shown(name, RecordType::A);
        assert_eq!(
            (code, records),
            (ResponseCode::NoError, vec![expected.to_owned()])
        );
    }
}

#[test]
fn a_name_without_a_record_of_the_type_exists_all_the_same() {
    for (name, kind) in [
        ("db.internal.", RecordType::AAAA),
        ("1.db.internal.", RecordType::AAAA),
        ("db.", RecordType::AAAA),
        ("db.internal.", RecordType::MX),
        ("internal.", RecordType::A),
        ("_tcp.db.internal.", RecordType::A),
        ("_udp.db.internal.", RecordType::SRV),
        ("_http._tcp.db.internal.", RecordType::A),
        ("1.0.80.100.in-addr.arpa.", RecordType::A),
    ] {
        let nothing = (ResponseCode::NoError, Vec::new(), Some(5));
        assert_eq!(shown(name, kind), nothing, "{name} {kind}");
    }
}

#[test]
fn what_is_not_needed_does_not_exist_and_is_soon_asked_for_again() {
    for (name, kind) in [
        ("cache.internal.", RecordType::A),
        ("cache.internal.", RecordType::AAAA),
        ("3.db.internal.", RecordType::A),
        ("0.db.internal.", RecordType::A),
        ("01.db.internal.", RecordType::A),
        ("1.web.internal.", RecordType::A),
        ("x.1.db.internal.", RecordType::A),
        ("_metrics._tcp.db.internal.", RecordType::SRV),
        ("_http._udp.db.internal.", RecordType::SRV),
        ("www.example.org.internal.", RecordType::A),
        ("9.9.80.100.in-addr.arpa.", RecordType::PTR),
    ] {
        let nothing = (ResponseCode::NXDomain, Vec::new(), Some(5));
        assert_eq!(shown(name, kind), nothing, "{name} {kind}");
    }
}

#[test]
fn ports_are_found_by_their_names_with_the_address() {
    let (code, records, _) = shown("_http._tcp.web.internal.", RecordType::SRV);
    assert_eq!(code, ResponseCode::NoError);
    assert_eq!(records, ["_http._tcp.web.internal. 0 0 8080 web.internal."]);
    let message = looked_up("_dns._udp.web.internal.", RecordType::SRV);
    let next: Vec<_> = message
        .additionals
        .iter()
        .map(|it| it.data.to_string())
        .collect();
    assert_eq!(next, ["100.80.0.2"]);
}

#[test]
fn addresses_have_names() {
    for (address, name) in [
        ("1.0.80.100", "db.internal."),
        ("2.1.80.100", "2.db.internal."),
    ] {
        let (_, records, _) = shown(&format!("{address}.in-addr.arpa."), RecordType::PTR);
        assert_eq!(records, [format!("{address}.in-addr.arpa. {name}")]);
    }
}

#[test]
fn other_names_are_not_ours() {
    for name in [
        "example.org.",
        "db.example.org.",
        "internal.example.org.",
        "localhost.",
        "cache.",
        ".",
        "1.0.0.10.in-addr.arpa.",
        "x.0.80.100.in-addr.arpa.",
    ] {
        let decision = decision(name, RecordType::A);
        assert!(
            matches!(decision, Decision::Forward),
            "{name}: {decision:?}"
        );
    }
}

#[test]
fn what_is_no_question_gets_no_answer_and_other_questions_are_refused() {
    let ignored = |bytes: &[u8]| matches!(decide(bytes, &[], None), Decision::Ignore);
    assert!(ignored(b"") && ignored(&[0; 5]) && ignored(&[0xff; 600]));
    let mut reply = question("db.internal.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    assert!(ignored(&reply.to_vec().unwrap()));
    let code = |message: &Message| match decide(&message.to_vec().unwrap(), &[], None) {
        Decision::Answer(answer) => answer.metadata.response_code,
        other => panic!("{other:?}"),
    };
    let mut two = question("db.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let update = Message::new(1, MessageType::Query, OpCode::Update);
    assert_eq!(code(&update), ResponseCode::NotImp);
}

#[test]
fn an_answer_that_is_too_long_says_so() {
    let request = question("db.internal.", RecordType::A);
    let message = looked_up("db.internal.", RecordType::A);
    let short = Message::from_vec(&encode(&message, 20).unwrap()).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());
    assert_eq!(udp_limit(&request.to_vec().unwrap()), 512);
    let mut large = request;
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    assert_eq!(udp_limit(&large.to_vec().unwrap()), 1232);
}
