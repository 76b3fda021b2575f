//! Errors and exit codes. Each kind of error has an exit code of its own, so that scripts need not parse messages.

use std::{fmt, io, path::PathBuf};

use serde_json::{Value, json};
use tucano_api::{error::ErrorBody, rollout::Failure, settings::SettingsErrors};

use crate::watch::explain;

/// The exit codes, as `tucano --help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the controller failed, or an error of no other kind
  2  the command line is wrong
  3  the configuration or the image was refused, cannot be read, or does not exist
  4  not all processes became healthy in time, and the new configuration stays; a job that others wait for has not
     succeeded; or a backup or a restoration is not done in time
  5  the controller cannot be reached, or its certificate cannot be verified
  6  the token is missing, cannot be read or is wrong
  7  there is no such service, process or revision
  8  somebody else was faster: the service has another revision than `--if-changed-from` says
`tucano exec` and `tucano run` end with the exit code of their command, or with 125.

With --json, standard output holds one JSON document: the result, or an object with `error`, `code` and `exit_code`.
`tucano logs --json` prints one object a line.";

/// Exit code of `exec` where its command could not be run.
const EXEC_FAILED: u8 = 125;

/// Why a command failed: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other, or one is malformed.
    #[error("{0}")]
    Usage(String),
    /// A service's configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsErrors),
    /// A configuration or an image was refused.
    #[error("{0}")]
    Refused(Message),
    /// Another program refused its configuration, with this report of several lines.
    #[error("{0}")]
    InvalidProgramConfig(String),
    /// A configuration or an image cannot be read.
    #[error("cannot {action} {}: {source}", .path.display())]
    Input {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file with the token cannot be read.
    #[error("cannot read the token in {}: {source}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A service has another revision than the one that a change was for.
    #[error("{0}")]
    RevisionChanged(Message),
    /// Processes did not become healthy.
    #[error("{message}")]
    NotHealthy {
        /// Which, and why.
        message: String,
        /// Details of some of them.
        failures: Vec<Failure>,
    },
    /// A job that an application's services wait for has not succeeded.
    #[error("{0}")]
    JobFailed(String),
    /// The controller does not answer.
    #[error(
        "no controller answers at {api} ({reason}). Is it running? `tucano dev` starts one on this machine; --api selects \
         another"
    )]
    Unreachable {
        /// Its address.
        api: String,
        /// Why it cannot be reached.
        reason: String,
    },
    /// The certificate of the server that answers is not the controller's.
    #[error(
        "the certificate of {api} cannot be verified ({reason}). --ca-file or TUCANO_CA_FILE names the certificate of the cluster's \
         authority, a copy of /etc/tucano/ca.pem of the controller's machine; the address must be one of the certificate's \
         names (`names` in [api] of ctl.toml adds some)"
    )]
    Unverified {
        /// Its address.
        api: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// The controller refuses the token.
    #[error("{0}: set the controller's token with --token-file or TUCANO_TOKEN")]
    Unauthorized(Message),
    /// The controller has no such service, process or revision.
    #[error("{0}")]
    NotFound(Message),
    /// The controller failed.
    #[error("{0}")]
    Controller(Message),
    /// The connection broke, or the answer is malformed.
    #[error("{step} at {api} failed: {reason}")]
    Transfer {
        /// The step that failed.
        step: &'static str,
        /// The controller's address.
        api: String,
        /// The cause.
        reason: String,
    },
    /// A command in a container ended with this exit code; `tucano exec` ends with the same.
    #[error("the command ended with {0}")]
    Command(u8),
    /// A command could not be run in a container.
    #[error("{0}")]
    NotRun(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Standard output could not be written to. A closed pipe is not an error.
    #[error("cannot write to standard output: {source}")]
    Output {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {}: {source}", .program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address is taken or cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A virtual host could not be made.
    #[error(transparent)]
    VirtualHost(#[from] tucano_vhost::Error),
    /// A part of the development cluster did not come up.
    #[error("{0}")]
    Dev(String),
    /// The asynchronous runtime or a signal handler could not be set up.
    #[error("cannot start: {source}")]
    Runtime {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A message, and the API's code for it where the controller sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    text: String,
    code: Option<String>,
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self { text, code: None }
    }
}

impl From<ErrorBody> for Message {
    fn from(body: ErrorBody) -> Self {
        Self {
            text: body.error,
            code: Some(body.code),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error {
    /// The exit code of this kind of error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Settings(_)
            | Self::InvalidProgramConfig(_)
            | Self::Refused(_)
            | Self::Input { .. } => 3,
            Self::NotHealthy { .. } | Self::JobFailed(_) => 4,
            Self::Unreachable { .. } | Self::Unverified { .. } => 5,
            Self::Unauthorized(_) | Self::TokenFile { .. } => 6,
            Self::NotFound(_) => 7,
            Self::RevisionChanged(_) => 8,
            Self::Command(code) => *code,
            Self::NotRun(_) => EXEC_FAILED,
            Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// A short, stable name for programs: the API's code, or else one of this kind of error.
    pub fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Settings(_) | Self::InvalidProgramConfig(_) => "invalid_config",
            Self::RevisionChanged(_) => "revision_changed",
            Self::Refused(message) => message.code.as_deref().unwrap_or("refused"),
            Self::Input { .. } => "unreadable_input",
            Self::TokenFile { .. } => "unreadable_token",
            Self::NotHealthy { .. } => "not_healthy",
            Self::JobFailed(_) => "job_failed",
            Self::Unreachable { .. } => "unreachable",
            Self::Unverified { .. } => "unverified",
            Self::Unauthorized(message) => message.code.as_deref().unwrap_or("unauthorized"),
            Self::NotFound(message) => message.code.as_deref().unwrap_or("not_found"),
            Self::Controller(message) => message.code.as_deref().unwrap_or("controller_failed"),
            Self::Transfer { .. } => "transfer_failed",
            Self::Command(_) => "command_failed",
            Self::NotRun(_) => "not_run",
            Self::File { .. } => "file",
            Self::Output { .. } => "output",
            Self::Program { .. } => "program",
            Self::Listen { .. } => "address_in_use",
            Self::VirtualHost(_) => "virtual_host",
            Self::Dev(_) => "dev",
            Self::Runtime { .. } => "runtime",
        }
    }

    /// The error for programs.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "error": self.to_string(), "code": self.code(), "exit_code": self.exit_code(),
        });
        if let Self::Settings(errors) = self {
            let places = errors.iter().map(|error| {
                json!({
                    "file": error.file, "line": error.line, "column": error.column,
                    "message": error.message,
                })
            });
            object["errors"] = places.collect();
        }
        object
    }

    /// Writes the error to standard error, or with `json` to standard output. Writes nothing about a closed pipe, or the end of a
    /// command in a container.
    pub fn report(&self, json: bool) {
        if self.exit_code() == 0 || matches!(self, Self::Command(_)) {
            return;
        }
        let is_printed = matches!(self, Self::NotHealthy { .. });
        match self {
            // A deploy's answer, which is printed already, contains the error.
            _ if json && is_printed => {}
            _ if json => drop(crate::output::data(&self.to_json().to_string())),
            _ => crate::output::status(&self.text()),
        }
    }

    /// For people: one line, except for errors of a configuration, which are shown with their lines, and for processes that are
    /// not healthy, which are explained.
    fn text(&self) -> String {
        match self {
            Self::Settings(errors) => errors.report(),
            Self::InvalidProgramConfig(report) => report.clone(),
            Self::NotHealthy { message, failures } => {
                let details = explain(failures);
                format!("tucano: {message}\n{}", details.trim_end())
                    .trim_end()
                    .to_owned()
            }
            other => format!("tucano: {}", other.to_string().replace('\n', " ")),
        }
    }

    /// The same as an error of `exec`, whose exit codes are those of its command.
    pub fn of_exec(self) -> Self {
        match self {
            command @ Self::Command(_) => command,
            other => Self::NotRun(other.to_string()),
        }
    }

    /// For `map_err`: a configuration or image that cannot be read.
    pub fn input(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Input {
            action,
            path,
            source,
        }
    }

    /// For `map_err`: an error of a file, with the action that failed.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

#[cfg(test)]
mod tests;
