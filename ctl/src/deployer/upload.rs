//! The parts of a deploy request. The image is not buffered in memory or in a temporary file: it is streamed into the image
//! store on a blocking thread, and becomes visible there only when it is complete.

use std::{
    ffi::OsStr,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::header::CONTENT_TYPE,
};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tucano_api::{
    ids::Digest,
    service::ServiceConfig,
    settings::SettingsError,
    units::{Bytes as Size, Span},
};
use tucano_oci_image::Image;

use super::{
    Deployer,
    images::{ImageGuard, blocking, from_oci, platform},
    prefetch::Announced,
};
use crate::{
    body::{self, BodyError},
    config_mgr::{Config, Limits},
};

/// Chunks of an image that are buffered between network and store.
const PIPE: usize = 16;
/// Longest run of bytes outside of part bodies: part headers and boundaries.
const UNREAD_BYTES: u64 = 64 << 20;
/// Lingering close: how much, and for how long, is read after an error so that the answer reaches the client.
const LINGER: (u64, Duration) = (256 << 20, Duration::from_secs(10));

/// A request's parts, each validated.
#[derive(Debug)]
pub struct Uploaded {
    /// The static configuration.
    pub config: ServiceConfig,
    /// Name of its text in errors.
    pub config_name: String,
    /// The uploaded image.
    pub image: Option<Digest>,
    /// Overrides the configuration's image.
    pub stored_image: Option<String>,
    /// Protects the image until a service references it.
    pub guard: ImageGuard,
    /// What agents prefetch of it, withdrawn unless the image is accepted.
    pub(super) announced: Option<Announced>,
}

/// Why a request was refused; nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The static configuration is invalid.
    #[error(transparent)]
    Config(#[from] SettingsError),
    /// The configuration is missing.
    #[error("the part \"config\" is missing: send it with `-F config=@hello.toml`")]
    NoConfig,
    /// An unknown part.
    #[error("unknown part {0:?}: send \"config\", and \"image\" or \"stored_image\"")]
    UnknownPart(String),
    /// A duplicate part.
    #[error("the part {0:?} was sent twice: send it once")]
    Twice(&'static str),
    /// The configuration selects one of the archive's images, but came after it.
    #[error(
        "the configuration's image {0:?} selects one image of the archive: send the part \"config\" before \"image\""
    )]
    NameTooLate(String),
    /// Both an image and a stored image are given.
    #[error("send \"image\" or \"stored_image\", not both")]
    TwoImages,
    /// A limit was exceeded, or the connection broke.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The request is malformed.
    #[error(
        "the request was cut off half-way, or is not multipart/form-data as curl -F sends it: {0}"
    )]
    Multipart(String),
    /// All upload slots are in use.
    #[error(
        "{0} images are being uploaded already, as many as limits.uploads allows: try again later"
    )]
    TooMany(u64),
    /// The image is invalid.
    #[error("the image was refused: {0}")]
    Image(#[from] tucano_oci_image::Error),
}

/// A permit for an upload.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicU64>);

impl Slot {
    pub(super) fn take(taken: &Arc<AtomicU64>, limit: u64) -> Option<Self> {
        let more = |now| (now < limit).then_some(now + 1);
        taken
            .fetch_update(Relaxed, Relaxed, more)
            .is_ok()
            .then(|| Self(taken.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Deployer {
    /// Reads a deploy request: multipart with an image, or only a static configuration.
    ///
    /// # Errors
    /// Why it was refused; nothing of it is stored.
    pub async fn receive(&self, request: Request) -> Result<Uploaded, UploadError> {
        let config = self.config.current();
        let is_multipart = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("multipart/form-data"));
        if is_multipart {
            return self.receive_parts(request, &config).await;
        }
        let limits = &config.limits;
        let limit = ("limits.config_bytes", limits.config_bytes);
        let idle = limits.body_idle.0;
        let text = body::read("the configuration", request.into_body(), limit, idle).await?;
        Ok(Uploaded {
            config: parse_config("config", &text)?,
            config_name: "config".to_owned(),
            image: None,
            stored_image: None,
            guard: self.images.guard().await,
            announced: None,
        })
    }

    async fn receive_parts(
        &self,
        request: Request,
        config: &Config,
    ) -> Result<Uploaded, UploadError> {
        let slot = Slot::take(&self.uploads, config.limits.uploads)
            .ok_or(UploadError::TooMany(config.limits.uploads))?;
        let unread = Arc::new(AtomicU64::new(0));
        let request = bound_unread(request, unread.clone());
        let mut multipart = Multipart::from_request(request, &())
            .await
            .map_err(|error| UploadError::Multipart(error.body_text()))?;
        let mut parts = Parts {
            deployer: self,
            limits: &config.limits,
            unread,
            slot: Some(slot),
            config: None,
            image: None,
            stored_image: None,
        };
        match parts.read(&mut multipart).await {
            Ok(()) => parts.finish().await,
            Err(error) => {
                if !matches!(
                    error,
                    UploadError::Multipart(_) | UploadError::Body(BodyError::Idle(_))
                ) {
                    discard(multipart, &parts.unread).await;
                }
                Err(error)
            }
        }
    }
}

/// Aborts the body when too many bytes arrive outside of part bodies.
fn bound_unread(request: Request, unread: Arc<AtomicU64>) -> Request {
    request.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |chunk| {
            let chunk = chunk.map_err(io::Error::other)?;
            let waiting = unread.fetch_add(chunk.len() as u64, Relaxed);
            if waiting > UNREAD_BYTES {
                return Err(io::Error::other("the head of a part is too long"));
            }
            Ok(chunk)
        }))
    })
}

/// Reads on for a while: a client that is still sending would otherwise get a reset instead of the answer.
async fn discard(mut multipart: Multipart, unread: &AtomicU64) {
    let (most, max_wait) = LINGER;
    let read = async {
        let mut left = most;
        while let Ok(Some(mut field)) = multipart.next_field().await {
            while let Ok(Some(chunk)) = field.chunk().await {
                unread.store(0, Relaxed);
                left = left.saturating_sub(chunk.len() as u64);
                if left == 0 {
                    return;
                }
            }
        }
    };
    if tokio::time::timeout(max_wait, read).await.is_err() {
        tracing::debug!("a refused upload did not end in time: closing the connection");
    }
}

struct Parts<'a> {
    deployer: &'a Deployer,
    limits: &'a Limits,
    unread: Arc<AtomicU64>,
    slot: Option<Slot>,
    config: Option<(String, ServiceConfig)>,
    image: Option<Received>,
    stored_image: Option<String>,
}

/// An imported image.
struct Received {
    image: Image,
    guard: ImageGuard,
    announced: Option<Announced>,
    file: String,
    /// The name that selected it within the archive.
    name: Option<String>,
}

impl Parts<'_> {
    async fn read(&mut self, multipart: &mut Multipart) -> Result<(), UploadError> {
        while let Some(field) = self.next_field(multipart).await? {
            self.unread.store(0, Relaxed);
            let name: String = field.name().unwrap_or_default().chars().take(80).collect();
            match name.as_str() {
                "config" if self.config.is_some() => return Err(UploadError::Twice("config")),
                "image" if self.image.is_some() => return Err(UploadError::Twice("image")),
                "stored_image" if self.stored_image.is_some() => {
                    return Err(UploadError::Twice("stored_image"));
                }
                "stored_image" => self.read_name(field).await?,
                "config" => self.read_config(field).await?,
                "image" => self.read_image(field).await?,
                _ => return Err(UploadError::UnknownPart(name)),
            }
        }
        Ok(())
    }

    async fn finish(self) -> Result<Uploaded, UploadError> {
        let (config_name, config) = self.config.ok_or(UploadError::NoConfig)?;
        if self.image.is_some() && self.stored_image.is_some() {
            return Err(UploadError::TwoImages);
        }
        let (image, guard, announced) = match self.image {
            None => (None, self.deployer.images.guard().await, None),
            Some(received) => {
                let wanted = name_within(&config, &received.file);
                if let Some(name) = wanted.filter(|_| received.name.is_none()) {
                    return Err(UploadError::NameTooLate(name));
                }
                let store = self.deployer.images.store().clone();
                let found = received.image.digest;
                let ours = blocking(move || from_oci(&store.by_sha256(&found)?)).await?;
                (Some(ours), received.guard, received.announced)
            }
        };
        Ok(Uploaded {
            config,
            config_name,
            image,
            stored_image: self.stored_image,
            guard,
            announced,
        })
    }

    async fn next_field<'m>(
        &self,
        multipart: &'m mut Multipart,
    ) -> Result<Option<Field<'m>>, UploadError> {
        let idle = self.limits.body_idle;
        tokio::time::timeout(idle.0, multipart.next_field())
            .await
            .map_err(|_| BodyError::Idle(idle))?
            .map_err(|error| UploadError::Multipart(error.body_text()))
    }

    async fn chunk(&self, field: &mut Field<'_>) -> Result<Option<Bytes>, UploadError> {
        let idle: Span = self.limits.body_idle;
        let chunk = tokio::time::timeout(idle.0, field.chunk())
            .await
            .map_err(|_| BodyError::Idle(idle))?
            .map_err(|error| UploadError::Multipart(error.body_text()))?;
        self.unread.store(0, Relaxed);
        Ok(chunk)
    }

    async fn read_config(&mut self, mut field: Field<'_>) -> Result<(), UploadError> {
        let file = file_name(&field).unwrap_or_else(|| "config".to_owned());
        let text = self.text("the configuration", &mut field).await?;
        let config = parse_config(&file, &text)?;
        self.config = Some((file, config));
        Ok(())
    }

    async fn read_name(&mut self, mut field: Field<'_>) -> Result<(), UploadError> {
        let text = self.text("the image's name", &mut field).await?;
        let name = String::from_utf8_lossy(&text).trim().to_owned();
        self.stored_image = Some(name);
        Ok(())
    }

    async fn text(
        &self,
        what: &'static str,
        field: &mut Field<'_>,
    ) -> Result<Vec<u8>, UploadError> {
        let mut text = Vec::new();
        while let Some(chunk) = self.chunk(field).await? {
            let limit = ("limits.config_bytes", self.limits.config_bytes);
            check_size(what, text.len() + chunk.len(), limit)?;
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }

    async fn read_image(&mut self, mut field: Field<'_>) -> Result<(), UploadError> {
        let file = file_name(&field).unwrap_or_default();
        let config = self.config.as_ref().map(|(_, config)| config);
        let name = config.and_then(|config| name_within(config, &file));
        let wanted = name.clone();
        let (pipe, reader) = pipe();
        let store = self.deployer.images.store().clone();
        let guard = self.deployer.images.guard().await;
        let slot = self.slot.take();
        let prefetcher = self.deployer.prefetcher.as_ref();
        let (observer, announced) = prefetcher.map(|it| it.observer(store.clone())).unzip();
        // If the request is aborted, its guard is dropped with the result, and the image is removed.
        let import = tokio::spawn(blocking(move || {
            let image = store.import_archive_with_listener(
                reader,
                &platform(),
                wanted.as_deref(),
                observer,
            );
            (image, guard, slot)
        }));
        let sent = self.send_image(&mut field, pipe).await;
        let (image, guard, slot) = import
            .await
            .map_err(|error| UploadError::Multipart(error.to_string()))?;
        self.slot = slot;
        // An error of the stream is the cause of the store's error.
        sent?;
        let image = image?;
        self.image = Some(Received {
            image,
            guard,
            announced,
            file,
            name,
        });
        Ok(())
    }

    async fn send_image(
        &self,
        field: &mut Field<'_>,
        pipe: mpsc::Sender<Piece>,
    ) -> Result<(), UploadError> {
        let mut length = 0;
        while let Some(chunk) = self.chunk(field).await? {
            length += chunk.len();
            let limit = ("limits.image_bytes", self.limits.image_bytes);
            check_size("the image", length, limit)?;
            if pipe.send(Piece::Bytes(chunk)).await.is_err() {
                // The store has stopped reading: it reports why.
                return Ok(());
            }
        }
        if pipe.send(Piece::End).await.is_err() {
            tracing::debug!("the store did not read an image completely");
        }
        Ok(())
    }
}

fn file_name(field: &Field<'_>) -> Option<String> {
    Some(field.file_name()?.chars().take(200).collect())
}

/// The configuration's `image` if it selects an image within the archive instead of naming the archive's file.
fn name_within(config: &ServiceConfig, file: &str) -> Option<String> {
    let image = config.image.as_deref()?;
    let is_file = Path::new(image).file_name() == Some(OsStr::new(file));
    (!is_file && image.contains([':', '@'])).then(|| image.to_owned())
}

fn check_size(
    what: &'static str,
    length: usize,
    (setting, limit): (&'static str, Size),
) -> Result<(), BodyError> {
    if length as u64 > limit.0 {
        return Err(BodyError::TooLarge {
            what,
            limit,
            setting,
        });
    }
    Ok(())
}

fn parse_config(file: &str, text: &[u8]) -> Result<ServiceConfig, SettingsError> {
    let text = std::str::from_utf8(text).map_err(|_| SettingsError {
        file: file.to_owned(),
        line: None,
        column: None,
        message: "is not UTF-8 text: send TOML or JSON".to_owned(),
    })?;
    super::patch::parse_sent(file, text)
}

enum Piece {
    Bytes(Bytes),
    /// End of the upload; without it the upload was cut off.
    End,
}

/// Reads the chunks of the other end.
struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

fn pipe() -> (mpsc::Sender<Piece>, PipeReader) {
    let (sender, pieces) = mpsc::channel(PIPE);
    let reader = PipeReader {
        pieces,
        current: Bytes::new(),
        ended: false,
    };
    (sender, reader)
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    let message = "the upload was cut off half-way";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
