//! The answers that every sample service gives.

use std::{
    env,
    fmt::Write as _,
    io::{self, Read, Write},
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use crate::{
    http::Exchange,
    settings::{dawdle, identity, variable},
};

/// Exit code of a requested crash.
pub const CRASH_EXIT_CODE: i32 = 3;

/// Answers one request:
///
/// - `GET /`: the identity of this process;
/// - `GET /healthz`: 200;
/// - `GET /env`: the environment, sorted;
/// - `GET /headers`: the client's address, the request line and its headers;
/// - `GET /slow?ms=N`: as `/`, after N ms;
/// - `GET /stream`: ten pieces, 100 ms apart;
/// - `POST /echo`: the request's body, as it comes;
/// - `GET /crash`: ends the process with code 3;
/// - any `Upgrade:` request, such as to `/ws`: 101, then each byte comes back.
///
/// # Errors
/// The connection's.
pub fn respond(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if let Some(protocol) = exchange.head.header("upgrade").map(str::to_owned) {
        return echo_for_ever(exchange, &protocol);
    }
    match (exchange.head.method.as_str(), exchange.head.path.as_str()) {
        ("GET" | "HEAD", "/") => greet(exchange),
        ("GET", "/healthz") => exchange.answer("200 OK", "ok\n"),
        ("GET", "/env") => exchange.answer("200 OK", &environment()),
        (_, "/headers") => headers(exchange),
        ("GET", "/slow") => slow(exchange),
        ("GET", "/stream") => stream(exchange),
        ("POST" | "PUT", "/echo") => echo(exchange),
        ("GET", "/crash") => {
            eprintln!("asked to crash");
            std::process::exit(CRASH_EXIT_CODE)
        }
        _ => exchange.answer("404 Not Found", "no such path\n"),
    }
}

/// Answers each datagram to `$UDP_PORT`, where it is set, with the identity of this process, in a thread of its own.
///
/// # Errors
/// If the port is taken.
pub fn answer_datagrams() -> io::Result<()> {
    let port: u16 = variable("UDP_PORT", 0);
    if port == 0 {
        return Ok(());
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        let text = format!("hello from {}\n", identity());
        while let Ok((_, client)) = socket.recv_from(&mut [0; 1500]) {
            // The client may be gone.
            socket.send_to(text.as_bytes(), client).unwrap_or_default();
        }
    });
    Ok(())
}

/// Answers with the identity of this process.
///
/// # Errors
/// The connection's.
pub fn greet(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let text = format!("hello from {}\n", identity());
    match exchange.head.method.as_str() {
        "HEAD" => exchange.answer("200 OK", ""),
        _ => exchange.answer("200 OK", &text),
    }
}

fn environment() -> String {
    let mut lines: Vec<String> = env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.display(), value.display()))
        .collect();
    lines.sort();
    lines.concat()
}

fn headers(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let head = &exchange.head;
    let mut text = format!("client {}\n{} {}", exchange.client, head.method, head.path);
    if !head.query.is_empty() {
        text = format!("{text}?{}", head.query);
    }
    for (name, value) in &head.headers {
        write!(text, "\n{name}: {value}").map_err(io::Error::other)?;
    }
    exchange.answer("200 OK", &format!("{text}\n"))
}

fn slow(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let ms = exchange
        .head
        .parameter("ms")
        .and_then(|ms| ms.parse().ok())
        .unwrap_or(1000);
    dawdle(Duration::from_millis(ms));
    greet(exchange)
}

fn stream(exchange: &mut Exchange<'_>) -> io::Result<()> {
    exchange.begin_stream()?;
    for piece in 1..=10 {
        exchange.send_piece(format!("piece {piece} of 10\n").as_bytes())?;
        dawdle(Duration::from_millis(100));
    }
    exchange.send_piece(b"")
}

fn echo(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut read = exchange.read(&mut buffer)?;
    exchange.begin_stream()?;
    while read > 0 {
        exchange.send_piece(&buffer[..read])?;
        read = exchange.read(&mut buffer)?;
    }
    exchange.send_piece(b"")
}

fn echo_for_ever(exchange: &mut Exchange<'_>, protocol: &str) -> io::Result<()> {
    let connection = exchange.upgrade(protocol)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            read => connection.get_mut().write_all(&buffer[..read])?,
        }
    }
}
