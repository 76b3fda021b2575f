//! Which look-up has which answer. Pure.
//!
//! Below `internal` there is what the asking process needs, and nothing else:
//!
//! - `db.internal`: the service's address (A); `1.db.internal`: that of a slot;
//! - `_http._tcp.db.internal`: a port by its name (SRV);
//! - the names of these addresses (PTR).
//!
//! What a name has no record of is answered without one (NODATA), so that a look-up of AAAA does not hide the A record.

use std::{net::Ipv4Addr, sync::Arc};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, PTR, SOA, SRV},
    },
};
use tucano_api::names::{NAMES_DOMAIN, NamedService, ServiceSubnet};

/// How long an answer may be remembered, in seconds. A service's address never changes.
const TTL: u32 = 30;
/// How long it may be remembered that a name does not exist: it may come with the next deploy.
const NEGATIVE_TTL: u32 = 5;
/// Largest UDP message that passes every network (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;
/// Largest UDP message for a client that does not say how much it takes.
const SMALLEST_UDP_BYTES: usize = 512;

/// What is to be done with a message.
#[derive(Debug)]
pub enum Decision {
    /// It is answered with this.
    Answer(Box<Message>),
    /// The node's name servers answer it.
    Forward,
    /// It is not a question.
    Ignore,
}

/// Decides on a process's message, by what that process may reach.
pub fn decide(
    bytes: &[u8],
    visible: &[Arc<NamedService>],
    subnet: Option<ServiceSubnet>,
) -> Decision {
    let Ok(request) = Message::from_vec(bytes) else {
        return Decision::Ignore;
    };
    if request.metadata.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    let refuse = |code| Decision::Answer(Box::new(response(&request, code)));
    if request.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else {
        return refuse(ResponseCode::FormErr);
    };
    let zone = Zone { visible, subnet };
    match zone.find(query) {
        None => Decision::Forward,
        Some(found) => Decision::Answer(Box::new(answer(&request, query, found))),
    }
}

/// An answer that says that the name servers do not answer.
pub fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = Message::from_vec(bytes).ok()?;
    encode(&response(&request, ResponseCode::ServFail), usize::MAX)
}

/// The message as bytes; one that is too long says so, and the client asks again over TCP.
pub fn encode(message: &Message, limit_bytes: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit_bytes {
        return Some(bytes);
    }
    message.truncate().to_vec().ok()
}

/// How long a UDP answer to this message may be.
pub fn udp_limit(bytes: &[u8]) -> usize {
    let edns = Message::from_vec(bytes).ok().and_then(|it| it.edns);
    let limit = edns.map_or(0, |edns| usize::from(edns.max_payload()));
    limit.clamp(SMALLEST_UDP_BYTES, UDP_BYTES.into())
}

/// What there is at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// No such name.
    Nothing,
    /// A name without a record of the type, perhaps only one with names below it.
    Empty,
    /// Its record, and one that its client will want next.
    Record(Box<RData>, Option<Box<(Name, RData)>>),
}

struct Zone<'a> {
    visible: &'a [Arc<NamedService>],
    subnet: Option<ServiceSubnet>,
}

impl Zone<'_> {
    /// `None` for names of others.
    fn find(&self, query: &Query) -> Option<Found> {
        if query.query_class() != DNSClass::IN {
            return None;
        }
        let labels: Vec<String> = query
            .name()
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let kind = query.query_type();
        match labels.as_slice() {
            [NAMES_DOMAIN] => Some(Found::Empty),
            [below @ .., NAMES_DOMAIN] => Some(self.below(below, kind)),
            [d, c, b, a, "in-addr", "arpa"] => self.reverse([a, b, c, d], kind),
            // Without the suffix, from resolvers that do not add it.
            [one] => {
                let found = self.below(&[one], kind);
                (found != Found::Nothing).then_some(found)
            }
            _ => None,
        }
    }

    fn below(&self, labels: &[&str], kind: RecordType) -> Found {
        let Some((name, rest)) = labels.split_last() else {
            return Found::Nothing;
        };
        let Some(service) = self.service(name) else {
            return Found::Nothing;
        };
        match rest {
            [] => address(service.address, kind),
            [transport] if has_transport(service, transport) => Found::Empty,
            [slot] => match slot_address(service, slot) {
                Some(ip) => address(ip, kind),
                None => Found::Nothing,
            },
            [port, transport] => self.port(service, port, transport, kind),
            _ => Found::Nothing,
        }
    }

    fn port(&self, service: &NamedService, port: &str, transport: &str, kind: RecordType) -> Found {
        let named = service.ports.iter().find(|it| {
            port.strip_prefix('_') == Some(it.name.as_str()) && transport == label_of(it)
        });
        let (Some(named), Some(target)) = (named, name_of(service, None)) else {
            return Found::Nothing;
        };
        if kind != RecordType::SRV {
            return Found::Empty;
        }
        let record = SRV::new(0, 0, named.port, target.clone());
        let address = RData::A(A(service.address));
        Found::Record(
            Box::new(RData::SRV(record)),
            Some(Box::new((target, address))),
        )
    }

    /// The names of addresses of services; those that the process may not reach have none.
    fn reverse(&self, octets: [&str; 4], kind: RecordType) -> Option<Found> {
        let ip: Ipv4Addr = octets.join(".").parse().ok()?;
        if !self.subnet?.contains(ip) {
            return None;
        }
        let name = self.visible.iter().find_map(|service| {
            let slot = service.slots.iter().position(|slot| *slot == ip);
            match slot {
                _ if service.address == ip => name_of(service, None),
                Some(index) => name_of(service, Some(index + 1)),
                None => None,
            }
        });
        Some(match name {
            None => Found::Nothing,
            Some(name) if kind == RecordType::PTR => {
                Found::Record(Box::new(RData::PTR(PTR(name))), None)
            }
            Some(_) => Found::Empty,
        })
    }

    fn service(&self, name: &str) -> Option<&NamedService> {
        let mut all = self.visible.iter();
        all.find(|it| it.service.as_str() == name)
            .map(AsRef::as_ref)
    }
}

fn address(ip: Ipv4Addr, kind: RecordType) -> Found {
    match kind {
        RecordType::A => Found::Record(Box::new(RData::A(A(ip))), None),
        _ => Found::Empty,
    }
}

fn slot_address(service: &NamedService, slot: &str) -> Option<Ipv4Addr> {
    // `01` is no other name of slot 1.
    let number: usize = slot
        .parse()
        .ok()
        .filter(|it: &usize| it.to_string() == slot)?;
    service.slots.get(number.checked_sub(1)?).copied()
}

fn has_transport(service: &NamedService, label: &str) -> bool {
    service.ports.iter().any(|port| label == label_of(port))
}

fn label_of(port: &tucano_api::names::NamedPort) -> &'static str {
    match port.protocol.is_udp() {
        true => "_udp",
        false => "_tcp",
    }
}

fn name_of(service: &NamedService, slot: Option<usize>) -> Option<Name> {
    let slot = slot.map_or_else(String::new, |slot| format!("{slot}."));
    Name::from_ascii(format!("{slot}{}.{NAMES_DOMAIN}.", service.service)).ok()
}

fn answer(request: &Message, query: &Query, found: Found) -> Message {
    let code = match found {
        Found::Nothing => ResponseCode::NXDomain,
        Found::Empty | Found::Record(..) => ResponseCode::NoError,
    };
    let mut message = response(request, code);
    message.metadata.authoritative = true;
    match found {
        Found::Record(data, next) => {
            message.add_answer(Record::from_rdata(query.name().clone(), TTL, *data));
            let next = next.map(|next| Record::from_rdata(next.0, TTL, next.1));
            message.add_additionals(next);
        }
        Found::Empty | Found::Nothing => {
            message.add_authorities(authority(query));
        }
    }
    message
}

/// Says how long it may be remembered that there is nothing.
fn authority(query: &Query) -> Option<Record> {
    let zone = match query.name().iter().next_back() {
        Some(b"arpa") => "in-addr.arpa.".to_owned(),
        _ => format!("{NAMES_DOMAIN}."),
    };
    let zone = Name::from_ascii(zone).ok()?;
    let seconds = NEGATIVE_TTL as i32;
    let data = SOA::new(
        zone.clone(),
        zone.clone(),
        1,
        seconds,
        seconds,
        seconds,
        NEGATIVE_TTL,
    );
    Some(Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(data)))
}

fn response(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata.response_code = code;
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES);
        message.set_edns(edns);
    }
    message
}

#[cfg(test)]
mod tests;
