//! Takes `$START_DELAY_MS` (3000 when unset) until it is ready.
//!
//! It listens only then; with `START=listening` it listens at once and answers 503 until it is ready.
//! `GET /early` returns how many requests other than `/healthz` came too early.

use std::{
    io,
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tucano_image_programs::{
    hello,
    http::Exchange,
    server,
    settings::{dawdle, variable},
};

static READY_AT: OnceLock<Instant> = OnceLock::new();
static EARLY_REQUESTS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let delay = Duration::from_millis(variable("START_DELAY_MS", 3000));
    let ready_at = *READY_AT.get_or_init(|| Instant::now() + delay);
    if variable("START", String::new()) != "listening" {
        dawdle(ready_at.saturating_duration_since(Instant::now()));
    }
    server::run(respond)
}

fn respond(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if READY_AT
        .get()
        .is_some_and(|ready_at| Instant::now() < *ready_at)
    {
        if exchange.head.path != "/healthz" {
            EARLY_REQUESTS.fetch_add(1, Ordering::Relaxed);
        }
        return exchange.answer("503 Service Unavailable", "not ready yet\n");
    }
    if exchange.head.path == "/early" {
        let early = EARLY_REQUESTS.load(Ordering::Relaxed);
        return exchange.answer("200 OK", &format!("{early}\n"));
    }
    hello::respond(exchange)
}
