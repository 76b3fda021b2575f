//! Lets another process make a layer: one that its program confines before it reads a byte of what nobody trusts.
//!
//! It is started in the layer's empty directory, with a request as its last argument; the blob comes on its stdin, and it
//! tells on its stdout, once, how it ended.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use oci_spec::image::{Descriptor, Digest};
use rustix::{fs::Mode, pipe::fcntl_setpipe_size, process::umask};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    layer::LayerOf,
    layers::Form,
    limits::Limits,
    make::{COMING, Room, Source, make_here},
    seal::Seal,
};

/// Largest report.
const REPORT_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
/// What a pipe may hold without being root's (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;

/// The program that makes layers; it calls [`serve`].
#[derive(Debug, Clone)]
pub struct Helper {
    /// Its path.
    pub program: PathBuf,
    /// Arguments before the request.
    pub arguments: Vec<OsString>,
}

/// What is to be made.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    form: Form,
    descriptor: Descriptor,
    diff_id: Option<Digest>,
    limits: Limits,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Made { seal: String, diff_id: Digest },
    TooManyToIndex(Digest),
    Failed { code: String, message: String },
}

/// Makes the layer that `request` asks for, of what comes on stdin, in the working directory, once `confine` has made that
/// the place where this process may work; tells on stdout how it ended.
///
/// # Errors
/// What is wrong with the request, or with this process's surroundings: nothing was told on stdout then.
pub fn serve(request: &str, confine: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let request: Request =
        serde_json::from_str(request).map_err(|error| format!("the request: {error}"))?;
    // Modes come from the layer alone.
    umask(Mode::empty());
    confine()?;
    let duplicate = |fd: io::Result<_>| fd.map(File::from).map_err(|error| error.to_string());
    let blob = duplicate(io::stdin().as_fd().try_clone_to_owned())?;
    let mut stdout = duplicate(io::stdout().as_fd().try_clone_to_owned())?;
    let report = serde_json::to_vec(&request.make(blob)).map_err(|error| error.to_string())?;
    stdout.write_all(&report).map_err(|error| error.to_string())
}

impl Request {
    fn make(&self, blob: File) -> Report {
        let layer = LayerOf {
            descriptor: &self.descriptor,
            diff_id: self.diff_id.as_ref(),
            limits: &self.limits,
        };
        let here = Path::new(".");
        let made = File::open(here)
            .map_err(|source| Error::io("open", here, source))
            .and_then(|directory| {
                let room = Room {
                    directory: &directory,
                    path: here,
                    umask: 0,
                };
                make_here(room, self.form, layer, blob, Path::new(COMING))
            });
        match made {
            Ok((seal, diff_id)) => Report::Made {
                seal: seal.text(),
                diff_id,
            },
            Err(Error::TooManyToIndex(layer)) => Report::TooManyToIndex(layer),
            Err(error) => Report::Failed {
                code: error.code().to_owned(),
                message: error.to_string(),
            },
        }
    }
}

impl Helper {
    /// Lets it make a layer in an empty directory.
    pub(crate) fn make(
        &self,
        directory: &Path,
        form: Form,
        layer: LayerOf<'_>,
        source: Source<'_>,
    ) -> Result<(Seal, Digest), Error> {
        let request = Request {
            form,
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id.cloned(),
            limits: layer.limits.clone(),
        };
        let request = serde_json::to_string(&request).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(request)
            .current_dir(directory)
            .stdout(Stdio::piped());
        let ended = match source {
            Source::File(blob, _) => {
                let child = command.stdin(blob).spawn().map_err(failed)?;
                Running(child).report()
            }
            Source::Stream(blob) => {
                let child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
                let mut running = Running(child);
                running.feed(blob)?;
                running.report()
            }
        };
        match ended? {
            Report::Made { seal, diff_id } => {
                let seal = Seal::parse(&seal).ok_or_else(|| failed("its seal makes no sense"))?;
                Ok((seal, diff_id))
            }
            Report::TooManyToIndex(layer) => Err(Error::TooManyToIndex(layer)),
            Report::Failed { code, message } => Err(Error::told(&code, message)),
        }
    }
}

/// A helper at work; dropped before it has told anything, it is ended.
struct Running(Child);

impl Running {
    /// Hands on what comes, as long as the helper takes it: why it does not, it tells itself.
    fn feed(&mut self, blob: &mut (dyn Read + Send)) -> Result<(), Error> {
        let Some(mut pipe) = self.0.stdin.take() else {
            return Ok(());
        };
        if let Err(error) = fcntl_setpipe_size(&pipe, PIPE_BYTES) {
            tracing::debug!(%error, "a pipe stays as small as it is");
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match blob.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::io("read", Path::new(COMING), source)),
            };
            match pipe.write_all(&buffer[..read]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(failed)?,
            }
        }
    }

    fn report(mut self) -> Result<Report, Error> {
        let mut report = Vec::new();
        if let Some(stdout) = self.0.stdout.take() {
            let mut bounded = stdout.take(REPORT_BYTES);
            bounded.read_to_end(&mut report).map_err(failed)?;
        }
        let status = self.0.wait().map_err(failed)?;
        if !status.success() {
            return Err(failed(format!("{status}; its own log lines say why")));
        }
        serde_json::from_slice(&report).map_err(failed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

fn failed(why: impl ToString) -> Error {
    Error::Helper(why.to_string())
}
