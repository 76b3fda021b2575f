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
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_from_their_end() {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let text = format!("sha256:{}", "0".repeat(64));
        let digest: Digest = text.parse().unwrap();
        let escaped = text.replace(':', "%3A");
        for (path, expected) in [
            ("/", Endpoint::Version),
            ("", Endpoint::Version),
            ("/_catalog", Endpoint::Catalog),
            ("/a/b/tags/list", Endpoint::Tags(name("a/b"))),
            ("/tags/list/tags/list", Endpoint::Tags(name("tags/list"))),
            ("/a/blobs/uploads/", Endpoint::Uploads(name("a"))),
            ("/a/blobs/uploads", Endpoint::Uploads(name("a"))),
            (
                "/a/blobs/uploads/x",
                Endpoint::Upload(name("a"), "x".to_owned()),
            ),
            (
                &format!("/blobs/blobs/{text}"),
                Endpoint::Blob(name("blobs"), digest.clone()),
            ),
            (
                &format!("/a/blobs/{escaped}"),
                Endpoint::Blob(name("a"), digest.clone()),
            ),
            (
                "/a/manifests/1",
                Endpoint::Manifest(name("a"), "1".parse().unwrap()),
            ),
            (
                &format!("/a/manifests/{text}"),
                Endpoint::Manifest(name("a"), Which::Digest(digest.clone())),
            ),
            (
                &format!("/a/referrers/{text}"),
                Endpoint::Referrers(name("a"), digest.clone()),
            ),
        ] {
            assert_eq!(Endpoint::parse(path).unwrap(), expected, "{path}");
        }
        for (path, code) in [
            ("/a", "UNSUPPORTED"),
            ("/a/b/c", "UNSUPPORTED"),
            ("/A/tags/list", "NAME_INVALID"),
            ("//tags/list", "NAME_INVALID"),
            ("/../manifests/x", "NAME_INVALID"),
            ("/a/manifests/.x", "TAG_INVALID"),
            ("/a/manifests/sha256:0", "DIGEST_INVALID"),
            (
                &format!("/a/blobs/sha384:{}", "0".repeat(96)),
                "DIGEST_INVALID",
            ),
        ] {
            assert_eq!(Endpoint::parse(path).unwrap_err().code(), code, "{path}");
        }
    }
}
