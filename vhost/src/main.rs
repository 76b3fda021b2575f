//! `tucano_vhost`: holder of a switch's namespace, init of a virtual host, and the way into either.
//! Started by the library of the same name; of no use by itself.

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
                "tucano_vhost is started by `tucano dev` and by tests; it has no use by itself"
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
