//! Writes more to its disk than allowed: after `GET /hog`, or at once when `HOG=now`. It writes 1 MiB after the other to
//! `/hog`, up to `$HOG_MIB` (1024 when unset), so that it ends even where there is no limit. With `HOG_NAMELESS=1` the
//! file loses its name first.

use std::{
    fs::{self, File},
    io::{self, Write},
    process::ExitCode,
    sync::Mutex,
};

use tucano_image_programs::{hello, http::Exchange, server, settings::variable};

const STEP_BYTES: usize = 1 << 20;
const FILE: &str = "/hog";

/// The file stays open, and so uses space without a name too.
static WRITTEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    if variable("HOG", String::new()) == "now"
        && let Err(error) = hog()
    {
        eprintln!("cannot write: {error}");
        return ExitCode::FAILURE;
    }
    server::run(respond)
}

fn respond(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if exchange.head.path == "/hog" {
        hog()?;
        return exchange.answer("200 OK", "written\n");
    }
    hello::respond(exchange)
}

fn hog() -> io::Result<()> {
    let file = variable("HOG_FILE", FILE.to_owned());
    let mut hog = File::create(&file)?;
    if variable("HOG_NAMELESS", 0) == 1 {
        fs::remove_file(&file)?;
    }
    for _ in 0..variable("HOG_MIB", 1024) {
        hog.write_all(&[1; STEP_BYTES])?;
    }
    // Poisoning does not matter, since the list is never read.
    WRITTEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(hog);
    Ok(())
}
