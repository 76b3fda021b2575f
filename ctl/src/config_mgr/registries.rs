//! `[[registry]]`: external registries that images may be pulled from.

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
    /// Host and port, as in image references.
    pub host: String,
    /// Address to connect to, such as a mirror's; the host by default.
    pub address: String,
    /// The credentials for it.
    pub credentials: Credentials,
    /// Certificate authorities in addition to the system's, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// Whether it is accessed without TLS.
    pub plain_http: bool,
}

impl Registry {
    /// A client for it.
    ///
    /// # Errors
    /// Its address or certificates are invalid.
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

/// One `[[registry]]` entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    host: Spanned<String>,
    address: Option<String>,
    user: Option<String>,
    password: Option<RedactedString>,
    password_file: Option<PathBuf>,
    token: Option<RedactedString>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    plain_http: bool,
}

/// A secret that `Debug` does not show.
#[derive(Deserialize)]
#[serde(transparent)]
struct RedactedString(String);

impl std::fmt::Debug for RedactedString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
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
        let for_host = |message: String| format!("registry {host:?}: {message}");
        let address = entry.address.clone().unwrap_or_else(|| host.clone());
        for place in [&host, &address] {
            check_host(place)?;
        }
        let credentials = self.credentials(&entry).map_err(for_host)?;
        let read = |path: &PathBuf| self.read_file("ca_file", path, AUTHORITIES_BYTES);
        let authorities = entry.ca_file.as_ref().map(read).transpose();
        let registry = Registry {
            credentials,
            authorities: authorities.map_err(for_host)?,
            plain_http: entry.plain_http,
            host: host.clone(),
            address,
        };
        if registry.plain_http && registry.authorities.is_some() {
            let message = "ca_file has no effect with plain_http: keep one of them";
            return Err(for_host(message.to_owned()));
        }
        Ok(registry)
    }

    fn credentials(&self, entry: &Entry) -> Result<Credentials, String> {
        let secret =
            |key, inline: &Option<RedactedString>, file: &Option<PathBuf>| match (inline, file) {
                (Some(_), Some(_)) => Err(format!("{key} and {key}_file are both given: keep one")),
                (Some(RedactedString(text)), None) => Ok(Some(Secret::new(text.as_str()))),
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
                Err("a user name must not contain a colon".to_owned())
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

/// `host` or `host:port`, as the first component of a reference.
fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_host = !name.is_empty() && name.len() <= 253 && name.bytes().all(plain);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    match is_host && is_port {
        true => Ok(()),
        false => Err(format!(
            "registry: {host:?} is not a host: write it as in image references, such as \"registry.example:5000\", in lower case and without https://"
        )),
    }
}
