//! `tucano`: the command line.

use std::process::ExitCode;

use clap::Parser;
use tucano_cli::{Arguments, Error};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(tucano_cli::run(arguments)),
        Err(source) => Err(Error::Runtime { source }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.say();
            ExitCode::from(error.exit_code())
        }
    }
}
