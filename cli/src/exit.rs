//! How a command can end. Each kind of failure has an exit code of its own, so that scripts need not read messages.

use std::{io, path::PathBuf};

use tucano_api::settings::SettingsError;

/// The exit codes, as `tucano --help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason
  2  the command line makes no sense
  3  the configuration or the image was refused
  4  not all processes became healthy in time; what was configured stands
  5  the controller cannot be reached, or be told to be it
  6  the token is missing or wrong
  7  there is no such service or process
exec ends with its command's own, or with 125.";

/// What `exec` ends with where its command could not be run.
const EXEC_FAILED: u8 = 125;

/// Why a command failed: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// A service's configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A configuration or an image was refused.
    #[error("{0}")]
    Refused(String),
    /// Processes did not become healthy.
    #[error("{0}")]
    NotHealthy(String),
    /// The controller does not answer.
    #[error(
        "no controller answers at {api} ({reason}): is it running? Start one on this machine with `tucano dev`, \
         or name another with --api"
    )]
    Unreachable {
        /// Where it was looked for.
        api: String,
        /// Why it cannot be reached.
        reason: String,
    },
    /// Who answers is not known to be the controller.
    #[error(
        "what answers at {api} cannot be told to be the cluster's controller ({reason}): give the cluster's certificate with \
         --ca-file or TUCANO_CA_FILE, a copy of the controller's /etc/tucano/ca.pem, and name the controller as its \
         certificate does (`names` in [api] of ctl.toml adds names)"
    )]
    Unverified {
        /// Where it was looked for.
        api: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The controller wants another token.
    #[error("{0}: give the controller's token with --token-file or TUCANO_TOKEN")]
    Unauthorized(String),
    /// The controller does not know it.
    #[error("{0}")]
    NotFound(String),
    /// The controller could not do it.
    #[error("the controller failed: {0}")]
    Controller(String),
    /// The connection broke, or the answer cannot be understood.
    #[error("{step} at {api} failed: {reason}")]
    Transfer {
        /// What was being done.
        step: &'static str,
        /// With which controller.
        api: String,
        /// What went wrong.
        reason: String,
    },
    /// A command in a container ended with this exit code, which is ours then.
    #[error("the command ended with {0}")]
    Command(u8),
    /// A command could not be run in a container.
    #[error("{0}")]
    NotRun(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Standard output could not be written to; a reader that has gone away is no failure.
    #[error("cannot write to standard output: {source}")]
    Output {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {}: {source}", .program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why not.
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
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A virtual host could not be made.
    #[error(transparent)]
    VirtualHost(#[from] tucano_vhost::Error),
    /// A part of the development cluster did not come up.
    #[error("{0}")]
    Dev(String),
    /// The machinery of the program itself.
    #[error("cannot start: {source}")]
    Runtime {
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The exit code that tells this kind of failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Settings(_) | Self::Refused(_) => 3,
            Self::NotHealthy(_) => 4,
            Self::Unreachable { .. } | Self::Unverified { .. } => 5,
            Self::Unauthorized(_) => 6,
            Self::NotFound(_) => 7,
            Self::Command(code) => *code,
            Self::NotRun(_) => EXEC_FAILED,
            Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// The same of `exec`, whose command may well end with our own exit codes.
    pub fn of_exec(self) -> Self {
        match self {
            own @ Self::Command(_) => own,
            other => Self::NotRun(other.to_string()),
        }
    }

    /// One line on standard error, unless a command has said what there was to say.
    pub fn say(&self) {
        if self.exit_code() != 0 && !matches!(self, Self::Command(_)) {
            let text = self.to_string().replace('\n', " ");
            crate::output::talk(&format!("tucano: {text}"));
        }
    }

    /// For `map_err`: a file's error with what was to be done.
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
mod tests {
    use super::*;

    #[test]
    fn every_documented_exit_code_is_given() {
        let refused = || "x".to_owned();
        let errors = [
            Error::Controller(refused()),
            Error::Usage(refused()),
            Error::Refused(refused()),
            Error::NotHealthy(refused()),
            Error::Unreachable {
                api: refused(),
                reason: refused(),
            },
            Error::Unauthorized(refused()),
            Error::NotFound(refused()),
        ];
        for (error, code) in errors.iter().zip(1..) {
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn exec_has_its_commands_exit_code_or_one_of_its_own() {
        assert_eq!(Error::Command(3).of_exec().exit_code(), 3);
        let unknown = Error::NotFound("there is no service x".to_owned()).of_exec();
        assert_eq!(unknown.exit_code(), 125);
        assert_eq!(unknown.to_string(), "there is no service x");
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure() {
        let source = io::ErrorKind::BrokenPipe.into();
        assert_eq!(Error::Output { source }.exit_code(), 0);
    }
}
