//! Uses more memory than allowed: after `GET /hog`, or at once when `HOG=now`. It touches 1 MiB
//! after the other, up to `$HOG_MIB` (1024 when unset), so that it ends even where there is no limit.

use std::{hint::black_box, io, process::ExitCode};

use tucano_image_programs::{hello, http::Exchange, server, settings::variable};

const STEP_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

fn main() -> ExitCode {
    if variable("HOG", String::new()) == "now" {
        eprintln!("survived {} MiB", hog());
    }
    server::run(respond)
}

fn respond(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if exchange.head.path == "/hog" {
        let taken = hog();
        return exchange.answer("200 OK", &format!("survived {taken} MiB\n"));
    }
    hello::respond(exchange)
}

/// Allocates the memory; returns how much, in MiB, if the kernel allows it.
fn hog() -> usize {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for _ in 0..variable("HOG_MIB", 1024) {
        let mut step = vec![0; STEP_BYTES];
        // Memory counts only once each page is written.
        step.iter_mut()
            .step_by(PAGE_BYTES)
            .for_each(|byte| *byte = 1);
        taken.push(black_box(step));
    }
    taken.len()
}
