//! Results go to standard output, progress and errors to standard error. A closed pipe never causes a panic.

use std::io::{self, IsTerminal, Write};

use crate::Error;

/// Writes a result to standard output, with a newline at its end.
pub fn data(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    write!(stdout, "{text}{newline}")
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Output { source })
}

/// Writes bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|source| Error::Output { source })
}

/// Writes a line to standard error. A failure is ignored: there is no other place to report it.
pub fn status(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
