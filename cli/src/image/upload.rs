//! Uploads those blobs of an image that the controller's registry does not have.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use oci_spec::image::Digest;
use tucano_oci_distribution::{
    Name,
    client::{self, Blob, Remote},
};
use tucano_oci_image::Description;

use super::{
    files::{FileRange, Files},
    progress,
    select::{SelectError, SelectedImage, is_supported, select_image},
};
use crate::{Error, client::Client, output};

/// Blobs that are uploaded at once.
const PARALLEL_UPLOADS: usize = 2;
/// Blobs that the registry is asked for at once.
const PARALLEL_QUERIES: usize = 8;

/// Uploads the selected image and returns its digest; `None` where the archive must be sent as a whole.
pub(super) async fn upload(
    client: &Client,
    image: &Path,
    name: Option<&str>,
) -> Result<Option<String>, Error> {
    let Some(files) = files(image).await? else {
        return Ok(None);
    };
    let platform = client.platform().await?;
    let wanted = name.map(str::to_owned);
    let selected = blocking(move || select_image(&files, wanted.as_deref(), &platform)).await?;
    let selected = match selected {
        Ok(selected) => selected,
        Err(SelectError::NotUnderstood) => return Ok(None),
        Err(SelectError::Read(source)) => {
            return Err(Error::input("read the image", image)(source));
        }
        Err(other) => {
            return Err(Error::Refused(
                format!("{}: {other}", image.display()).into(),
            ));
        }
    };
    let registry = client.registry()?;
    let repository = client.repository()?;
    let upload = Upload {
        client,
        registry: &registry,
        repository: &repository,
    };
    upload.run(&selected).await?;
    Ok(Some(selected.digest.to_string()))
}

/// What the image of an archive or layout for a platform says of its processes; `None` where it cannot be read blob by blob.
pub(super) async fn describe(image: &Path, platform: String) -> Result<Option<Description>, Error> {
    let Some(files) = files(image).await? else {
        return Ok(None);
    };
    let described = blocking(move || -> Result<Description, SelectError> {
        let selected = select_image(&files, None, &platform)?;
        let manifest: serde_json::Value =
            serde_json::from_slice(&selected.manifest).map_err(|_| SelectError::NotUnderstood)?;
        let config = manifest
            .pointer("/config/digest")
            .and_then(serde_json::Value::as_str);
        let mut blobs = selected.blobs.iter();
        let found = blobs.find(|(digest, _)| Some(digest.as_ref()) == config);
        let (_, range) = found.ok_or(SelectError::NotUnderstood)?;
        let config = serde_json::from_slice(&range.read(0, range.bytes)?);
        Ok(Description::of(
            &config.map_err(|_| SelectError::NotUnderstood)?,
        ))
    });
    match described.await? {
        Ok(description) => Ok(Some(description)),
        Err(SelectError::NotUnderstood) => Ok(None),
        Err(SelectError::Read(source)) => Err(Error::input("read the image", image)(source)),
        Err(other) => Err(Error::Refused(
            format!("{}: {other}", image.display()).into(),
        )),
    }
}

/// The image's files, if they can be read one by one and their format is supported here.
async fn files(image: &Path) -> Result<Option<Files>, Error> {
    let path = image.to_owned();
    let opened = blocking(move || {
        let files = Files::open(&path)?;
        Ok(files.filter(is_supported))
    });
    opened.await?.map_err(Error::input("read the image", image))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Runtime {
        source: io::Error::other(error),
    })
}

struct Upload<'a> {
    client: &'a Client,
    registry: &'a Remote,
    repository: &'a Name,
}

/// A blob in a file.
struct LocalBlob {
    digest: Digest,
    range: FileRange,
}

impl Blob for LocalBlob {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn bytes(&self) -> u64 {
        self.range.bytes
    }

    fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        Ok(self.range.read(from, length)?.into())
    }
}

impl Upload<'_> {
    async fn run(&self, image: &SelectedImage) -> Result<(), Error> {
        let missing = self.missing(image).await?;
        let bytes: u64 = missing.iter().map(Blob::bytes).sum();
        let total = image.blobs.len();
        let present = total - missing.len();
        if present > 0 {
            let line = format!("the controller already has {present} of {total} blobs");
            output::status(&line);
        }
        let bar = progress(bytes);
        stream::iter(&missing)
            .map(|blob| self.upload_blob(blob, &bar))
            .buffer_unordered(PARALLEL_UPLOADS)
            .try_collect::<()>()
            .await?;
        bar.finish_and_clear();
        let put = self.registry.push_manifest(
            self.repository,
            &image.digest,
            &image.media_type,
            image.manifest.clone(),
        );
        put.await.map_err(|error| self.error_of(error))
    }

    async fn missing(&self, image: &SelectedImage) -> Result<Vec<LocalBlob>, Error> {
        stream::iter(&image.blobs)
            .map(|(digest, range)| async move {
                let is_present = self.registry.has_blob(self.repository, digest).await;
                let local = LocalBlob {
                    digest: digest.clone(),
                    range: range.clone(),
                };
                let is_present = is_present.map_err(|error| self.error_of(error))?;
                Ok((!is_present).then_some(local))
            })
            .buffered(PARALLEL_QUERIES)
            .try_filter_map(async |missing| Ok(missing))
            .try_collect()
            .await
    }

    async fn upload_blob(&self, blob: &LocalBlob, bar: &ProgressBar) -> Result<(), Error> {
        let before = AtomicU64::new(0);
        let update = |arrived: u64| {
            let before = before.swap(arrived, Relaxed);
            // After a retry, less has arrived than before it.
            match arrived.checked_sub(before) {
                Some(more) => bar.inc(more),
                None => bar.dec(before - arrived),
            }
        };
        let pushed = self
            .registry
            .push_blob(self.repository, blob, &update)
            .await;
        pushed.map_err(|error| self.error_of(error))
    }

    fn error_of(&self, error: client::Error) -> Error {
        use client::Error as Failure;
        let api = self.client.api().to_owned();
        match error {
            Failure::Unreachable { reason, .. } => Error::Unreachable { api, reason },
            Failure::Unauthorized { reason, .. } => Error::Unauthorized(reason.into()),
            Failure::Refused { status, .. } if (400..500).contains(&status) && status != 429 => {
                Error::Refused(error.to_string().into())
            }
            Failure::Refused { .. } => Error::Controller(error.to_string().into()),
            other => Error::Transfer {
                step: "the upload",
                api,
                reason: other.to_string(),
            },
        }
    }
}
