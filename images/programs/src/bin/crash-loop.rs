//! Prints a line on stderr and exits with 1 after `$LIFE_MS` (50 when unset).

use std::{process::ExitCode, time::Duration};

use tucano_image_programs::settings::{dawdle, identity, variable};

fn main() -> ExitCode {
    eprintln!("crash-loop begins and will end soon: {}", identity());
    dawdle(Duration::from_millis(variable("LIFE_MS", 50)));
    ExitCode::FAILURE
}
