//! Reading `agent.toml` and the files that it names.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use tucano_api::settings::{MAX_SETTINGS_BYTES, SettingsErrors, parse_all};
use tucano_tls::{CA_FILE, Mode, Trust};

use super::{Settings, Token};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content of the configuration is invalid.
    #[error(transparent)]
    Invalid(#[from] SettingsErrors),
    /// The token file cannot be read.
    #[error("cannot read token_file {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `ca_file` is not a valid certificate.
    #[error("ca_file: {0}")]
    Ca(#[from] tucano_tls::Error),
    /// `ca_file` is missing, and the controller's URL needs it.
    #[error(
        "ca_file {path} does not exist: copy the controller's {CA_FILE} to it (or <data_dir>/tls/ca.pem, where the controller \
         runs without packages), as you do with its agent-token"
    )]
    NoCa {
        /// The file.
        path: PathBuf,
    },
    /// The token file holds no token.
    #[error("token_file {path} is empty: write the agent_token of the controller into it")]
    EmptyToken {
        /// The file.
        path: PathBuf,
    },
}

impl Settings {
    /// Reads `agent.toml`, the token file and the authority's certificate.
    ///
    /// # Errors
    /// A file is missing or unreadable, or its content is invalid.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = read_bounded(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut settings: Self = parse_all(&path.display().to_string(), &text)?;
        if let Some(file) = &settings.token_file {
            settings.token = Some(read_token(file)?);
        }
        settings.trust = settings.read_trust()?;
        Ok(settings)
    }

    fn read_trust(&self) -> Result<Option<Trust>, LoadError> {
        let trust = match self.tls_mode() {
            Mode::On => Trust::read(&self.ca_file)?,
            Mode::Off => None,
        };
        let is_required = self.controller.starts_with("https:");
        match trust {
            None if is_required => Err(LoadError::NoCa {
                path: self.ca_file.clone(),
            }),
            other => Ok(other),
        }
    }
}

fn read_token(path: &Path) -> Result<Token, LoadError> {
    let text = read_bounded(path).map_err(|source| LoadError::Token {
        path: path.to_owned(),
        source,
    })?;
    let token = Token::from(text.trim());
    if !token.is_valid() {
        return Err(LoadError::EmptyToken {
            path: path.to_owned(),
        });
    }
    Ok(token)
}

/// Reads a text file up to one byte more than a configuration may be long.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(MAX_SETTINGS_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}
