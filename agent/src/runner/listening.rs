//! The TCP addresses that the programs of a network namespace listen on, from `/proc/PID/net/tcp` and `tcp6` (proc_pid_net(5)).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Most of each file that is read, in bytes: some 27,000 sockets.
const MAX_BYTES: u64 = 4 << 20;
/// Most addresses that are reported.
const MAX_ADDRESSES: usize = 16;
/// State of a listening socket (TCP_LISTEN of include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Addresses of listening sockets in the network namespace of a process; `None` if they cannot be read.
pub(super) fn of(pid: i32) -> Option<Vec<SocketAddr>> {
    let mut addresses = BTreeSet::new();
    let mut is_known = false;
    for file in ["tcp", "tcp6"] {
        // Without IPv6 there is no second file.
        if let Ok(file) = File::open(format!("/proc/{pid}/net/{file}")) {
            is_known = true;
            let lines = BufReader::new(file.take(MAX_BYTES)).lines();
            addresses.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
        }
    }
    is_known.then(|| addresses.into_iter().take(MAX_ADDRESSES).collect())
}

/// The local address of a line, if that is of a listening socket.
fn parse(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then_some(SocketAddr::new(address(ip)?, port))
}

/// 32-bit words, each in the byte order of the machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let line = |local: &str, state: &str| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0"
            )
        };
        if cfg!(target_endian = "little") {
            let address = parse(&line("0100007F:1F90", "0A")).unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:8080");
            let address = parse(&line("00000000000000000000000001000000:0050", "0A")).unwrap();
            assert_eq!(address.to_string(), "[::1]:80");
        }
        for wrong in [
            line("0100007F:1F90", "01"),
            line("0100007F", "0A"),
            line("0100007:1F90", "0A"),
            "  sl  local_address rem_address   st".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_sockets_of_this_namespace_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let file = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let found = file.lines().filter_map(parse).collect::<Vec<_>>();
        assert!(found.contains(&listener.local_addr().unwrap()), "{found:?}");
        assert!(!of(own).unwrap().is_empty());
        assert_eq!(of(0), None);
    }
}
