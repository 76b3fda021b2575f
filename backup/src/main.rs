//! `tucano_backup`: stores volumes in restic repositories, and restores them. The agent starts it.

use std::{
    io::{BufReader, stderr, stdin, stdout},
    process::ExitCode,
};

use tucano_backup::{
    Event, Failure,
    engine::{read_request, run, say},
};

const HELP: &str = "\
tucano_backup stores volumes in restic repositories, and restores them. The agent starts it: the request is the first line of
standard input, and there are no arguments. By hand, `restic` does the same with the same repositories.";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            println!("tucano_backup {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            println!("{HELP}");
            return ExitCode::from(2);
        }
    }
    let mut input = BufReader::new(stdin());
    let result = read_request(&mut input)
        .and_then(|request| run(request, input, &mut stdout().lock(), Box::new(stderr())));
    let (event, code) = match result {
        Ok(outcome) => (Event::Result(outcome), ExitCode::SUCCESS),
        Err(failure) => failed(failure),
    };
    say(&mut stderr(), &event);
    code
}

fn failed(failure: Failure) -> (Event, ExitCode) {
    let code = ExitCode::from(failure.class.exit_code());
    (Event::Error(failure), code)
}
