//! The plain sample service: see `tucano_image_programs::hello` for what it answers.

use std::process::ExitCode;

use tucano_image_programs::{hello, server};

fn main() -> ExitCode {
    server::run(hello::respond)
}
