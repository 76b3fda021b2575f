//! stdout is data, stderr is talk. Neither panics when its reader goes away.

use std::io::{self, IsTerminal, Write};

use crate::Error;

/// Writes data to standard output, with a newline at its end.
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

/// Says a line to the person, who may not listen any more: then there is nobody to tell that.
pub fn talk(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Whether a person watches standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}
