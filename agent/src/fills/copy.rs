//! One attempt to copy a volume. It goes on where an earlier one ended.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};
use tucano_api::{units::Bytes, volumes::VolumeFill};

use super::{Progress, source::Source};
use crate::{
    credentials::Credentials,
    files::sync_directory,
    volumes::{
        Error, FillFiles, Volumes,
        helper::{Event, Helper, Request, Task},
        points,
        tree::{entry::Bounds, target::Resume},
    },
};

/// Comparisons that may find a difference before the attempt fails.
const COMPARISONS: usize = 3;
/// Chunks of the other worker's answer that wait for the confined process.
const CHUNKS: usize = 8;
/// Bounds of a manifest's size, between which it is a share of the volume's: it is on the agent's disk, outside of the volume.
const SMALLEST_MANIFEST: u64 = 1 << 20;
const LARGEST_MANIFEST: u64 = 1 << 30;
const MANIFEST_SHARE: u64 = 8;

/// Why an attempt ended.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// Whether another attempt would end the same way.
    pub(super) is_lasting: bool,
}

impl Failure {
    /// One that may not happen again.
    pub(super) fn passing(why: &impl ToString) -> Self {
        Self {
            message: why.to_string(),
            is_lasting: false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: error.to_string(),
            is_lasting: matches!(error, Error::InPlace(_) | Error::NoRoom { .. }),
        }
    }
}

/// An attempt.
pub(super) struct Copy<'a> {
    pub(super) fill: &'a VolumeFill,
    pub(super) volumes: &'a Arc<Volumes>,
    pub(super) credentials: &'a Credentials,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) stalled: Duration,
    pub(super) most_entries: u64,
}

/// Ends the confined process when the attempt is dropped.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Copy<'_> {
    /// Copies what is missing, until a comparison finds no difference.
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let source = Source::of(self.fill, self.credentials, self.stalled)?;
        let files = self.volumes.fill_files(&self.fill.volume.id);
        let mut different = String::new();
        for _ in 0..COMPARISONS {
            if !files.manifest.exists() {
                self.receive_manifest(&source, &files).await?;
                std::fs::rename(&files.received, &files.manifest)
                    .and_then(|()| {
                        sync_directory(files.manifest.parent().unwrap_or(Path::new("/")))
                    })
                    .map_err(|error| Failure::passing(&error))?;
                points::reached("manifest");
            }
            self.write(&source, &files).await?;
            self.blocking(Volumes::sync_fill).await?;
            points::reached("compare");
            match self.compare(&source, &files).await? {
                None => return self.blocking(Volumes::set_whole).await,
                Some(what) => different = what,
            }
        }
        self.blocking(Volumes::discard_fill).await?;
        Err(Failure::passing(&format!(
            "the copy differs again and again: {different}"
        )))
    }

    /// Asks what the volume has. It is on the disk after this, and nothing has read it.
    async fn receive_manifest(&self, source: &Source, files: &FillFiles) -> Result<(), Failure> {
        let most = self.fill.size.0 / MANIFEST_SHARE;
        let most = most.clamp(SMALLEST_MANIFEST, LARGEST_MANIFEST);
        let mut answer = source.get("manifest").await?;
        let file = File::create(&files.received).map_err(|error| Failure::passing(&error))?;
        let mut received = 0;
        while let Some(chunk) = source.chunk(&mut answer).await? {
            received += chunk.len() as u64;
            if received > most {
                return Err(Failure {
                    message: format!(
                        "the names and attributes of its files take more than {}, an eighth of the volume",
                        Bytes(most)
                    ),
                    is_lasting: true,
                });
            }
            (&file)
                .write_all(&chunk)
                .map_err(|error| Failure::passing(&error))?;
        }
        let synced = spawn_blocking(move || file.sync_all()).await;
        let synced = synced.map_err(|error| Failure::passing(&error))?;
        synced.map_err(|error| Failure::passing(&error))
    }

    /// Copies the contents that are missing, and gives everything its metadata.
    async fn write(&self, source: &Source, files: &FillFiles) -> Result<(), Failure> {
        let (send, resume) = oneshot::channel::<Resume>();
        let send = Mutex::new(Some(send));
        let progress = Arc::clone(self.progress);
        let on = move |event: &Event| match event {
            Event::Resume(resume) => {
                progress.change(|report| {
                    report.done = Bytes(resume.done);
                    report.total = Some(Bytes(resume.total));
                    report.problem = None;
                });
                let sender = send.lock().unwrap_or_else(PoisonError::into_inner).take();
                sender.map(|sender| sender.send(*resume));
            }
            Event::Done(done) => {
                progress.change(|report| report.done = Bytes(*done));
                if progress
                    .report()
                    .total
                    .is_some_and(|total| *done >= total.0 / 2)
                {
                    points::reached("half");
                }
            }
            _ => {}
        };
        let (chunks, body) = mpsc::channel(CHUNKS);
        let running = self.helper(Task::Write, files, body, on).await?;
        let feed = async {
            // Without a word the process has failed, and says why.
            let Ok(Resume { entry, offset, .. }) = resume.await else {
                return Ok(());
            };
            let part = format!("contents?from={entry}&offset={offset}");
            pump(source, &part, chunks).await
        };
        let (fed, ended) = tokio::join!(feed, running);
        match ended? {
            Event::Success => Ok(()),
            Event::Failure {
                message,
                is_lasting,
            } => {
                // What the source could not send is told better by the connection.
                fed?;
                // Everything is copied anew: what is there may be of nonsense that the other worker has sent.
                self.blocking(Volumes::discard_fill).await?;
                Err(Failure {
                    message,
                    is_lasting,
                })
            }
            event => Err(Failure::passing(&format!(
                "the copying process said {event:?}"
            ))),
        }
    }

    /// Compares the copy with what the other worker has now. Returns the first difference.
    async fn compare(&self, source: &Source, files: &FillFiles) -> Result<Option<String>, Failure> {
        self.receive_manifest(source, files).await?;
        let (one, other) = (files.manifest.clone(), files.received.clone());
        let same = spawn_blocking(move || have_same_content(&one, &other)).await;
        let same = same.map_err(|error| Failure::passing(&error))?;
        if !same.map_err(|error| Failure::passing(&error))? {
            // Everything is copied again.
            self.blocking(Volumes::discard_fill).await?;
            return Err(Failure::passing(
                &"the volume has changed while it was copied",
            ));
        }
        let (chunks, body) = mpsc::channel(CHUNKS);
        let running = self.helper(Task::Compare, files, body, |_| {}).await?;
        let (fed, ended) = tokio::join!(pump(source, "digests", chunks), running);
        match ended? {
            Event::Success => Ok(None),
            Event::Different(what) => Ok(Some(what)),
            Event::Failure {
                message,
                is_lasting,
            } => {
                fed?;
                Err(Failure {
                    message,
                    is_lasting,
                })
            }
            event => Err(Failure::passing(&format!(
                "the copying process said {event:?}"
            ))),
        }
    }

    /// Starts the confined process on the mounted copy.
    async fn helper(
        &self,
        task: Task,
        files: &FillFiles,
        body: mpsc::Receiver<bytes::Bytes>,
        on: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<BoxFuture<'static, Result<Event, Failure>>, Failure> {
        let directory = self.blocking(Volumes::mount_fill).await?;
        let manifest = files.manifest.clone();
        let request = Request {
            task,
            bounds: Bounds {
                entries: self.most_entries,
                bytes: self.fill.size.0,
            },
        };
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let cancel = Cancel(Arc::clone(&is_cancelled));
        let running = spawn_blocking(move || {
            let helper = Helper {
                directory: &directory,
                manifest: &manifest,
                request,
                is_cancelled: &is_cancelled,
            };
            helper.run(body, &on)
        });
        let ended = async move {
            let _cancel = cancel;
            let ended = running.await.map_err(|error| Failure::passing(&error))?;
            ended.map_err(|error| Failure::passing(&error))
        };
        Ok(Box::pin(ended))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Volumes, &tucano_api::agent::VolumeInstance) -> Result<T, Error>
        + Send
        + 'static,
    ) -> Result<T, Failure> {
        let (volumes, volume) = (Arc::clone(self.volumes), self.fill.volume.clone());
        let done = spawn_blocking(move || run(&volumes, &volume)).await;
        done.map_err(|error| Failure::passing(&error))?
            .map_err(Failure::from)
    }
}

/// Passes a part of the volume on to the confined process, until that reads no more.
async fn pump(source: &Source, part: &str, to: mpsc::Sender<bytes::Bytes>) -> Result<(), Failure> {
    let mut answer = source.get(part).await?;
    while let Some(chunk) = source.chunk(&mut answer).await? {
        if to.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn have_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut one = io::BufReader::with_capacity(1 << 18, one).bytes();
    let mut other = io::BufReader::with_capacity(1 << 18, other).bytes();
    loop {
        match (one.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(true),
            (first, second) if first != second => return Ok(false),
            _ => {}
        }
    }
}
