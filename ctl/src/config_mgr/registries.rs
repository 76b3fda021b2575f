//! `[[registry]]`: other people's registries that images may be pulled from.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;
use tucano_api::settings::SettingsError;
use tucano_oci_distribution::client::{Credentials, Options, Remote, Secret};

use super::Reader;
use crate::config_mgr::limits::Limits;

/// Largest file of certificates, in bytes.
const AUTHORITIES_BYTES: u64 = 1 << 20;
/// Largest file with a password or token, in bytes.
const SECRET_BYTES: u64 = 64 << 10;

/// A registry that images may be pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Host and port, as references have it.
    pub host: String,
    /// Where it is, if not there: of a mirror, or of a registry that goes by another name.
    pub address: String,
    /// Who we are to it.
    pub credentials: Credentials,
    /// More certificate authorities than the system's, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// Whether it is spoken to without TLS.
    pub plain_http: bool,
}

impl Registry {
    /// How to speak to it.
    ///
    /// # Errors
    /// What is wrong with its address or certificates.
    pub fn connect(
        &self,
        limits: &Limits,
    ) -> Result<Remote, tucano_oci_distribution::client::Error> {
        let scheme = if self.plain_http { "http" } else { "https" };
        Remote::new(Options {
            base: format!("{scheme}://{}", self.address),
            credentials: self.credentials.clone(),
            authorities: self.authorities.clone(),
            only_those: false,
            silence: limits.body_idle.0,
            proxies: true,
        })
    }
}

/// One `[[registry]]` entry, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    host: Spanned<String>,
    address: Option<String>,
    user: Option<String>,
    password: Option<Hidden>,
    password_file: Option<PathBuf>,
    token: Option<Hidden>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    plain_http: bool,
}

/// A text that does not show itself.
#[derive(Deserialize)]
#[serde(transparent)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

impl Reader<'_> {
    pub(super) fn registries(&self, entries: Vec<Entry>) -> Result<Vec<Registry>, SettingsError> {
        let mut registries: Vec<Registry> = Vec::new();
        for entry in entries {
            let span = entry.host.span();
            let wrong = |message: String| self.error(Some(span.clone()), message);
            let registry = self.registry(entry).map_err(wrong)?;
            if registries.iter().any(|other| other.host == registry.host) {
                return Err(wrong(format!(
                    "registry: {:?} is listed twice: keep one",
                    registry.host
                )));
            }
            registries.push(registry);
        }
        Ok(registries)
    }

    fn registry(&self, entry: Entry) -> Result<Registry, String> {
        let host = entry.host.get_ref().clone();
        let of_host = |message: String| format!("registry {host:?}: {message}");
        let address = entry.address.clone().unwrap_or_else(|| host.clone());
        for place in [&host, &address] {
            check_host(place)?;
        }
        let credentials = self.credentials(&entry).map_err(of_host)?;
        let read = |path: &PathBuf| self.read_file("ca_file", path, AUTHORITIES_BYTES);
        let authorities = entry.ca_file.as_ref().map(read).transpose();
        let registry = Registry {
            credentials,
            authorities: authorities.map_err(of_host)?,
            plain_http: entry.plain_http,
            host: host.clone(),
            address,
        };
        if registry.plain_http && registry.authorities.is_some() {
            let message = "ca_file is of no use with plain_http: keep one of them";
            return Err(of_host(message.to_owned()));
        }
        Ok(registry)
    }

    fn credentials(&self, entry: &Entry) -> Result<Credentials, String> {
        let secret = |key, inline: &Option<Hidden>, file: &Option<PathBuf>| match (inline, file) {
            (Some(_), Some(_)) => Err(format!("{key} and {key}_file are both given: keep one")),
            (Some(Hidden(text)), None) => Ok(Some(Secret::new(text.as_str()))),
            (None, Some(path)) => {
                let bytes = self.read_file(&format!("{key}_file"), path, SECRET_BYTES)?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| format!("{key}_file: {} is not text", path.display()))?;
                Ok(Some(Secret::new(text.trim())))
            }
            (None, None) => Ok(None),
        };
        let password = secret("password", &entry.password, &entry.password_file)?;
        let token = secret("token", &entry.token, &entry.token_file)?;
        match (&entry.user, password, token) {
            (None, None, None) => Ok(Credentials::Anonymous),
            (None, None, Some(token)) => Ok(Credentials::Token(token)),
            (Some(user), Some(_), None) if user.contains(':') => {
                Err("a user's name has no colon".to_owned())
            }
            (Some(user), Some(password), None) => Ok(Credentials::User {
                name: user.clone(),
                password,
            }),
            _ => Err("give user and password (or password_file), or token (or token_file), or none of them".to_owned()),
        }
    }

    fn read_file(&self, key: &str, path: &PathBuf, limit: u64) -> Result<Vec<u8>, String> {
        let path = self.directory.join(path);
        let failed = |error| format!("{key}: cannot read {}: {error}", path.display());
        let bytes = fs::metadata(&path).map_err(failed)?.len();
        if bytes > limit {
            return Err(format!(
                "{key}: {} has {bytes} bytes: at most {limit} are read",
                path.display()
            ));
        }
        fs::read(&path).map_err(failed)
    }
}

/// `host` or `host:port`, as the first part of a reference.
fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_host = !name.is_empty() && name.len() <= 253 && name.bytes().all(plain);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    match is_host && is_port {
        true => Ok(()),
        false => Err(format!(
            "registry: {host:?} is no host: write it as references do, such as \"registry.example:5000\", in lower case and without https://"
        )),
    }
}
