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

/// Asks on the terminal whether to do something that cannot be undone, unless `yes` is set.
///
/// # Errors
/// The answer is not yes, or there is no terminal to ask on.
pub fn confirm(what: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !stderr_is_terminal() {
        let message = format!("this would {what}: add --yes, since there is no terminal to ask on");
        return Err(Error::Usage(message));
    }
    write!(io::stderr().lock(), "This will {what}. Continue? [y/N] ").ok();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok();
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Usage("nothing was changed".to_owned())),
    }
}

/// Whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
