//! The plain sample service: see `tucano_image_programs::hello` for what it answers.

use std::process::ExitCode;

use tucano_image_programs::{hello, server};

fn main() -> ExitCode {
    if let Err(error) = hello::answer_datagrams() {
        eprintln!("cannot answer datagrams: {error}");
        return ExitCode::FAILURE;
    }
    server::run(hello::respond)
}
