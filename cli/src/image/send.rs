//! Sends an image's blobs to the controller's registry, as far as it does not have them.

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

use super::{
    choose::{Chosen, NoChoice, choose, is_known},
    files::{Extent, Files},
    progress,
};
use crate::{Error, client::Client, output};

/// Blobs that are sent at once.
const AT_ONCE: usize = 2;
/// Questions that are asked at once.
const QUESTIONS: usize = 8;

/// Sends the image that is meant, and gives its digest; `None` where only the archive as a whole can be sent.
pub(super) async fn send(
    client: &Client,
    image: &Path,
    name: Option<&str>,
) -> Result<Option<String>, Error> {
    let Some(files) = files(image).await? else {
        return Ok(None);
    };
    let platform = client.platform().await?;
    let wanted = name.map(str::to_owned);
    let chosen = blocking(move || choose(&files, wanted.as_deref(), &platform)).await?;
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(NoChoice::Unclear) => return Ok(None),
        Err(NoChoice::Read(source)) => return Err(Error::file("read the image", image)(source)),
        Err(other) => return Err(Error::Refused(format!("{}: {other}", image.display()))),
    };
    let registry = client.registry()?;
    let repository = client.repository()?;
    let sending = Sending {
        client,
        registry: &registry,
        repository: &repository,
    };
    sending.all(&chosen).await?;
    Ok(Some(chosen.digest.to_string()))
}

/// The image's files, if they can be told apart and are of a kind that is known here.
async fn files(image: &Path) -> Result<Option<Files>, Error> {
    let path = image.to_owned();
    let opened = blocking(move || {
        let files = Files::open(&path)?;
        Ok(files.filter(is_known))
    });
    opened.await?.map_err(Error::file("read the image", image))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Runtime {
        source: io::Error::other(error),
    })
}

struct Sending<'a> {
    client: &'a Client,
    registry: &'a Remote,
    repository: &'a Name,
}

/// A blob in a file.
struct Local {
    digest: Digest,
    extent: Extent,
}

impl Blob for Local {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn bytes(&self) -> u64 {
        self.extent.bytes
    }

    fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        Ok(self.extent.read(from, length)?.into())
    }
}

impl Sending<'_> {
    async fn all(&self, chosen: &Chosen) -> Result<(), Error> {
        let missing = self.missing(chosen).await?;
        let bytes: u64 = missing.iter().map(Blob::bytes).sum();
        if missing.len() < chosen.blobs.len() {
            let there = chosen.blobs.len() - missing.len();
            let all = chosen.blobs.len();
            output::talk(&format!(
                "the controller has {there} of {all} blobs already"
            ));
        }
        let bar = progress(bytes);
        stream::iter(&missing)
            .map(|blob| self.one(blob, &bar))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        bar.finish_and_clear();
        let put = self.registry.push_manifest(
            self.repository,
            &chosen.digest,
            &chosen.media_type,
            chosen.manifest.clone(),
        );
        put.await.map_err(|error| self.failed(error))
    }

    async fn missing(&self, chosen: &Chosen) -> Result<Vec<Local>, Error> {
        stream::iter(&chosen.blobs)
            .map(|(digest, extent)| async move {
                let there = self.registry.has_blob(self.repository, digest).await;
                let local = Local {
                    digest: digest.clone(),
                    extent: extent.clone(),
                };
                Ok(there
                    .map_err(|error| self.failed(error))?
                    .then_some(())
                    .map_or(Some(local), |()| None))
            })
            .buffered(QUESTIONS)
            .try_filter_map(async |missing| Ok(missing))
            .try_collect()
            .await
    }

    async fn one(&self, blob: &Local, bar: &ProgressBar) -> Result<(), Error> {
        let before = AtomicU64::new(0);
        let tell = |arrived: u64| {
            let before = before.swap(arrived, Relaxed);
            // An upload that was begun anew has come less far than the one before.
            match arrived.checked_sub(before) {
                Some(more) => bar.inc(more),
                None => bar.dec(before - arrived),
            }
        };
        let pushed = self.registry.push_blob(self.repository, blob, &tell).await;
        pushed.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: client::Error) -> Error {
        use client::Error as Failure;
        let api = self.client.api().to_owned();
        match error {
            Failure::Unreachable { reason, .. } => Error::Unreachable { api, reason },
            Failure::Unauthorized { reason, .. } => Error::Unauthorized(reason),
            Failure::Refused { status, .. } if (400..500).contains(&status) && status != 429 => {
                Error::Refused(error.to_string())
            }
            Failure::Refused { .. } => Error::Controller(error.to_string()),
            other => Error::Transfer {
                step: "the upload",
                api,
                reason: other.to_string(),
            },
        }
    }
}
