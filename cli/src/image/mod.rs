//! The configuration and image of a service, found from a path, and their upload.
//!
//! - `files`: the files of an archive or layout;
//! - `config_files`: the text files that the configuration names;
//! - `select`: which image of the archive is meant;
//! - `upload`: sends the blobs that the controller does not have;
//! - `mounts`: the images that are mounted from archives;
//! - `archive`: sends an archive as a whole, where it is not understood here: a compressed one, for example.

mod archive;
pub(crate) mod config_files;
mod files;
mod mounts;
mod select;
mod upload;

use std::{
    fs,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::multipart::{Form, Part};
use tucano_api::{
    ids::Digest,
    service::ServiceConfig,
    settings::{MAX_SETTINGS_BYTES, parse_all},
};

use tucano_oci_image::{Description, Platform};

use crate::{Error, client::Client, output};

/// The configuration's name in a service's directory.
const CONFIG: &str = "service.toml";

/// A service to deploy.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Names the configuration in errors.
    pub file: String,
    /// The configuration's text, as it is sent.
    pub text: String,
    /// The parsed text.
    pub config: ServiceConfig,
    /// An archive or an OCI layout directory. Absent where the configuration names an image by its digest, or as `name:tag` or
    /// `name@sha256:…` of a registry.
    pub image: Option<PathBuf>,
    /// An image that the controller has or can pull; it takes the place of the configuration's.
    pub stored: Option<String>,
    /// The archives that are mounted, by the index of the mount.
    mounts: Vec<(usize, PathBuf)>,
}

impl Source {
    /// The service of `path`: a configuration, or a directory with a `service.toml`. `image` takes the place of the
    /// configuration's.
    ///
    /// # Errors
    /// A file that cannot be read, a configuration that cannot be used, or no image.
    pub fn of_service(path: &Path, image: Option<&Path>) -> Result<Self, Error> {
        let path = if path.is_dir() {
            path.join(CONFIG)
        } else {
            path.to_owned()
        };
        Self::of_text(&path, read(&path)?, image)
    }

    /// The service of a text; names of files are relative to `path`.
    ///
    /// # Errors
    /// As [`Source::of_service`].
    pub fn of_text(path: &Path, text: String, image: Option<&Path>) -> Result<Self, Error> {
        let file = path.display().to_string();
        let (text, config) = config_files::parse(path, text)?;
        let named = image.and_then(Path::to_str);
        let named = named.filter(|name| is_reference(name) && !Path::new(name).exists());
        let directory = path.parent().unwrap_or(Path::new(""));
        let image = match (image, &config.image) {
            (Some(_), _) if named.is_some() => None,
            (Some(image), _) => Some(image.to_owned()),
            (None, Some(name)) => file_of(directory, name),
            (None, None) => {
                let advice = "add the key `image`, or use --image";
                return Err(Error::Refused(
                    format!("{file} names no image: {advice}").into(),
                ));
            }
        };
        if let Some(image) = &image {
            check_image(image)?;
        }
        Ok(Self {
            mounts: mounts::of_config(directory, &config)?,
            file,
            text,
            config,
            image,
            stored: named.map(str::to_owned),
        })
    }

    /// The service of `path`, which may also be an image: then its configuration is a `service.toml` beside it, or else a default
    /// one, named after the file.
    ///
    /// # Errors
    /// As [`Source::of_service`], and a file name from which no service name can be made.
    pub fn of_service_or_image(path: &Path) -> Result<Self, Error> {
        let is_layout = path.join("oci-layout").is_file();
        if path.join(CONFIG).is_file() {
            return Self::of_service(path, is_layout.then_some(path));
        }
        if path.is_dir() && !is_layout {
            let message = format!(
                "{} has no {CONFIG} and is not an OCI layout",
                path.display()
            );
            return Err(Error::Refused(message.into()));
        }
        let beside = path.with_file_name(CONFIG);
        if beside.is_file() {
            return Self::of_service(&beside, Some(path));
        }
        if is_config(path) {
            return Self::of_service(path, None);
        }
        check_image(path)?;
        let text = default_config(path);
        let file = format!("the configuration made for {}", path.display());
        let config = parse_all(&file, &text)?;
        Ok(Self {
            file,
            text,
            config,
            image: Some(path.to_owned()),
            stored: None,
            mounts: Vec::new(),
        })
    }

    /// The same image with another configuration.
    #[must_use]
    pub fn with_config(self, config: ServiceConfig) -> Self {
        Self {
            text: serde_json::to_string(&config).unwrap_or_default(),
            config,
            ..self
        }
    }

    /// The service with the digests of its mounted archives, which are uploaded where the controller does not have them.
    ///
    /// # Errors
    /// An archive that cannot be read, or that the registry refuses.
    pub async fn with_mounts_uploaded(&self, client: &Client) -> Result<Self, Error> {
        let mut source = self.clone();
        for (index, archive) in std::mem::take(&mut source.mounts) {
            let digest = mounts::upload(client, &archive).await?;
            if let Some(mount) = source.config.mount.get_mut(index) {
                mount.image = Some(digest);
            }
            source.text = serde_json::to_string(&source.config).unwrap_or_default();
        }
        Ok(source)
    }

    /// The configuration for a request without files: with an image that the controller has, or that it finds by its name. Uploads
    /// what the controller does not have.
    ///
    /// # Errors
    /// An image that cannot be read blob by blob, or that the registry refuses.
    pub async fn uploaded(&self, client: &Client) -> Result<ServiceConfig, Error> {
        let mut config = self.with_mounts_uploaded(client).await?.config;
        if let Some(image) = &self.image {
            let digest = upload::upload(client, image, self.name_within()).await?;
            config.image = Some(digest.ok_or_else(|| mounts::not_understood(image))?);
        }
        if let Some(stored) = &self.stored {
            config.image = Some(stored.clone());
        }
        Ok(config)
    }

    /// The parts of the request; none where the configuration alone is the request. Blobs that the controller does not have are
    /// uploaded first, where the archive is understood. Shows the progress on a terminal.
    ///
    /// # Errors
    /// An image that cannot be read, or that the registry refuses.
    pub async fn form(&self, client: &Client) -> Result<Option<Form>, Error> {
        let config = Part::text(self.text.clone()).file_name(self.file.clone());
        // The first part, so that a wrong configuration is refused before the image is read.
        let form = Form::new().part("config", config);
        if let Some(stored) = &self.stored {
            return Ok(Some(form.text("stored_image", stored.clone())));
        }
        let Some(image) = &self.image else {
            return Ok(None);
        };
        if let Some(digest) = upload::upload(client, image, self.name_within()).await? {
            return Ok(Some(form.text("stored_image", digest)));
        }
        let part = if image.is_dir() {
            archive::layout_part(image)?
        } else {
            archive::archive_part(image).await?
        };
        let name = image.file_name().map(|name| name.to_string_lossy());
        let name = name.map_or_else(|| "image.tar".to_owned(), |name| name.into_owned());
        Ok(Some(form.part("image", part.file_name(name))))
    }

    /// The name of an image within the archive, where the configuration gives one.
    fn name_within(&self) -> Option<&str> {
        let name = self.config.image.as_deref()?;
        let is_file = self
            .image
            .as_ref()
            .is_some_and(|image| image.ends_with(name));
        (!is_file && is_reference(name)).then_some(name)
    }
}

/// What the image of an archive or layout says of its processes, of those for this machine's platform.
///
/// # Errors
/// It is no image, or cannot be read blob by blob.
pub(crate) async fn describe(image: &Path) -> Result<Description, Error> {
    check_image(image)?;
    let platform = Platform::host().to_string();
    let described = upload::describe(image, platform).await?;
    described.ok_or_else(|| mounts::not_understood(image))
}

fn read(path: &Path) -> Result<String, Error> {
    check_size(path, "a configuration", MAX_SETTINGS_BYTES)?;
    fs::read_to_string(path).map_err(Error::input("read", path))
}

/// The file that a configuration in this directory names as an image, unless it is a digest or a reference.
fn file_of(directory: &Path, image: &str) -> Option<PathBuf> {
    let beside = directory.join(image);
    let is_digest = image.parse::<Digest>().is_ok();
    (!is_digest && (beside.exists() || !is_reference(image))).then_some(beside)
}

/// Refuses a file over its limit before it is read.
fn check_size(path: &Path, what: &str, limit: usize) -> Result<(), Error> {
    let size = fs::metadata(path)
        .map_err(Error::input("read", path))?
        .len();
    if size > limit as u64 {
        let message = format!(
            "{} has {size} bytes; the limit for {what} is {limit} bytes",
            path.display()
        );
        return Err(Error::Refused(message.into()));
    }
    Ok(())
}

/// Whether a string that names no file looks like `name:tag`, `name@sha256:…` or `sha256:…`, with or without a registry
/// (`host:port/name:tag`). The controller resolves it.
fn is_reference(image: &str) -> bool {
    let is_plain = |text: &str, others: &[u8]| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        !text.is_empty() && text.bytes().all(plain)
    };
    let (host, rest) = match image.split_once('/') {
        Some((host, rest)) if host.contains(':') => (Some(host), rest),
        _ => (None, image),
    };
    let (name, tag) = match rest.split_once("@sha256:") {
        Some(parts) => parts,
        None => rest.rsplit_once(':').unwrap_or((rest, "")),
    };
    host.is_none_or(|host| is_plain(host, b".:-"))
        && is_plain(name, b"._-/")
        && !name.starts_with(['.', '/'])
        && is_plain(tag, b"._-")
}

fn is_config(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("toml" | "json"))
}

/// Refuses early what the controller would refuse after the upload.
fn check_image(path: &Path) -> Result<(), Error> {
    let found = fs::metadata(path).map_err(Error::input("read the image", path))?;
    if found.is_dir() && !path.join("oci-layout").is_file() {
        let message = format!(
            "{} is not an image: it has no file `oci-layout`",
            path.display()
        );
        return Err(Error::Refused(message.into()));
    }
    Ok(())
}

fn default_config(image: &Path) -> String {
    let stem = image
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = stem.chars().map(plain).take(50).collect();
    let name = name.trim_matches('-');
    format!("name = \"{name}\"\nconcurrency = 2\nport = 8080\n")
}

/// Shown on standard error if that is a terminal.
fn progress(length: u64) -> ProgressBar {
    let target = if output::stderr_is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let template = "uploading {bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style)
}

fn advance(bar: &ProgressBar, bytes: usize) {
    bar.inc(bytes as u64);
    if bar.length().is_some_and(|length| bar.position() >= length) {
        bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests;
