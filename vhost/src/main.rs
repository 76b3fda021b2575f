//! `tucano_vhost`: holds a switch's namespace, is the init of a virtual host, and runs programs in either.
//! Only the library of the same name starts it.

mod program;

use std::{env, ffi::OsString, process::ExitCode};

use tucano_vhost::settings::FAILED;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let mode = arguments
        .get(1)
        .and_then(|mode| mode.to_str())
        .unwrap_or_default();
    let rest = arguments.get(2..).unwrap_or_default();
    let result = match mode {
        "switch" => program::switch::hold(rest),
        "host" => program::host::start(&arguments[0], rest),
        "init" => program::init::run(rest),
        "run" => program::run::in_host(&arguments[0], rest),
        "exec" => program::run::replace(rest),
        "net" => program::run::in_network(rest),
        _ => {
            eprintln!(
                "tucano_vhost is a helper of `tucano dev` and of tests; it cannot be run directly"
            );
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        match mode {
            "switch" | "host" | "init" => println!("{FAILED}{error:#}"),
            _ => eprintln!("tucano_vhost: {error:#}"),
        }
        ExitCode::from(126)
    })
}
