//! `tucano`: the command line.

use std::process::ExitCode;

use tucano_cli::{Error, args};

fn main() -> ExitCode {
    let arguments = match args::try_parse_from(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let json = arguments.global.json;
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
            error.report(json);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version go to standard output; so does an error, as JSON, if the command line asks for that.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !wants_json {
        error.exit();
    }
    let text = error.render().to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    let message = message.lines().next().unwrap_or_default().to_owned();
    let error = Error::Usage(message);
    error.report(true);
    ExitCode::from(error.exit_code())
}
