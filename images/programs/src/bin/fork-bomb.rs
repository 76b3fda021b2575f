//! Makes as many processes as it gets: `GET /bomb` starts copies of this program until the kernel
//! refuses one, or `$BOMB_PROCESSES` (4096 when unset) are there, then ends them and tells how many.

use std::{
    env, io,
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use tucano_image_programs::{hello, http::Exchange, server, settings::variable};

const SIT: &str = "sit";

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(SIT) {
        loop {
            thread::park();
        }
    }
    server::run(respond)
}

fn respond(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if exchange.head.path != "/bomb" {
        return hello::respond(exchange);
    }
    let mut copies = Vec::new();
    let refusal = multiply(&mut copies);
    let count = copies.len();
    end(copies)?;
    let why = refusal.map_or_else(|| "as many as asked".to_owned(), |error| error.to_string());
    exchange.answer("200 OK", &format!("{count} processes, then: {why}\n"))
}

fn multiply(copies: &mut Vec<Child>) -> Option<io::Error> {
    while copies.len() < variable("BOMB_PROCESSES", 4096) {
        let copy = env::current_exe()
            .and_then(|own| Command::new(own).arg(SIT).stdin(Stdio::null()).spawn());
        match copy {
            Ok(copy) => copies.push(copy),
            Err(error) => return Some(error),
        }
    }
    None
}

fn end(copies: Vec<Child>) -> io::Result<()> {
    for mut copy in copies {
        copy.kill()?;
        copy.wait()?;
    }
    Ok(())
}
