//! Running commands in a machine: a script over a connection of its own, its output and its exit code back (`base/…/run`).

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Where systemd in the machine waits for scripts.
const PORT: u16 = 7;
/// To connect takes a moment in a machine that is up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, above 128 for a signal's number.
    pub exit: i32,
    /// All that it wrote, standard output and standard error as they came.
    pub text: String,
}

/// Runs a script; `patience` is how long it may write nothing. To be called in the machines' network namespace.
pub(super) fn run(ip: Ipv4Addr, script: &str, patience: Duration) -> io::Result<Output> {
    let address = SocketAddr::new(ip.into(), PORT);
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(script.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    read.map_err(|error| io::Error::other(format!("{error}, after this answer: {answer}")))?;
    parse(&answer).ok_or_else(|| io::Error::other(format!("no exit code after {answer:?}")))
}

/// The last line is the exit code, and begins with a line's end of its own.
fn parse(answer: &str) -> Option<Output> {
    let (text, exit) = answer.trim_end().rsplit_once("\nexit=")?;
    Some(Output {
        exit: exit.parse().ok()?,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_exit_code() {
        let output = parse("one\nexit=7\ntwo\n\nexit=3\n").unwrap();
        assert_eq!(output.exit, 3);
        assert_eq!(output.text, "one\nexit=7\ntwo\n");
        assert_eq!(parse("\nexit=0\n").unwrap().text, "");
        assert_eq!(parse("cut short"), None);
    }
}
