//! Parses request paths.

use oci_spec::image::Digest;

use crate::{
    error::Error,
    name::{self, Name, Which},
};

/// The endpoint of a path below `/v2`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Version,
    Catalog,
    Tags(Name),
    Referrers(Name, Digest),
    Manifest(Name, Which),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, String),
}

impl Endpoint {
    /// Parses the path after `/v2`.
    pub(super) fn parse(path: &str) -> Result<Self, Error> {
        // Some clients percent-encode the colon of a digest.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let path = path.strip_prefix('/').unwrap_or(&path);
        match path {
            "" => return Ok(Self::Version),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        if let Some(name) = trimmed.strip_suffix("/blobs/uploads") {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (rest, last) = path.rsplit_once('/').ok_or_else(|| unknown(path))?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(name.parse()?, last.to_owned()));
        }
        if let Some(name) = rest.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name.parse()?, last.parse()?));
        }
        if let Some(name) = rest.strip_suffix("/blobs") {
            return Ok(Self::Blob(name.parse()?, name::digest(last)?));
        }
        if let Some(name) = rest.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name.parse()?, name::digest(last)?));
        }
        Err(unknown(path))
    }
}

fn unknown(path: &str) -> Error {
    let path: String = path.chars().take(300).collect();
    Error::Unsupported(format!(
        "/v2/{path} is no endpoint of the distribution specification"
    ))
}

#[cfg(test)]
mod tests;
