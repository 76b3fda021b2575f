//! Unpacks a layer in another process, which confines itself before it reads any untrusted byte.
//!
//! The process is started in the layer's empty directory, with the request as its last argument and the blob on its
//! stdin. It writes one report to its stdout.

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

use super::{
    layers::Form,
    make::{Source, Target, unpack_here},
};
use crate::{
    error::Error,
    layer::{LayerSpec, STREAM},
    limits::Limits,
    seal::Seal,
};

/// Largest report.
const REPORT_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
/// The largest pipe that an unprivileged process may have (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;

/// The program that unpacks layers by calling [`serve`].
#[derive(Debug, Clone)]
pub struct Helper {
    /// The program's path.
    pub program: PathBuf,
    /// Arguments before the request.
    pub arguments: Vec<OsString>,
}

/// Which layer to unpack, and how.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    form: Form,
    descriptor: Descriptor,
    diff_id: Option<Digest>,
    limits: Limits,
}

/// The outcome.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    #[serde(rename = "Made")]
    Unpacked {
        seal: String,
        diff_id: Digest,
    },
    TooManyToIndex(Digest),
    Failed {
        code: String,
        message: String,
    },
}

/// Unpacks the layer on stdin into the working directory as `request` says, after `confine` has restricted this process
/// to that directory. Writes the report to stdout.
///
/// # Errors
/// Why no report was written: an invalid request, or a failure of `confine` or of stdout.
pub fn serve(request: &str, confine: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let request: Request =
        serde_json::from_str(request).map_err(|error| format!("the request: {error}"))?;
    // The layer alone determines the modes.
    umask(Mode::empty());
    confine()?;
    let duplicate = |fd: io::Result<_>| fd.map(File::from).map_err(|error| error.to_string());
    let blob = duplicate(io::stdin().as_fd().try_clone_to_owned())?;
    let mut stdout = duplicate(io::stdout().as_fd().try_clone_to_owned())?;
    let report = serde_json::to_vec(&request.unpack(blob)).map_err(|error| error.to_string())?;
    stdout.write_all(&report).map_err(|error| error.to_string())
}

impl Request {
    fn unpack(&self, blob: File) -> Report {
        let layer = LayerSpec {
            descriptor: &self.descriptor,
            diff_id: self.diff_id.as_ref(),
            limits: &self.limits,
        };
        let here = Path::new(".");
        let unpacked = File::open(here)
            .map_err(|source| Error::io("open", here, source))
            .and_then(|directory| {
                let target = Target {
                    directory: &directory,
                    path: here,
                    umask: 0,
                };
                unpack_here(target, self.form, layer, blob, Path::new(STREAM))
            });
        match unpacked {
            Ok((seal, diff_id)) => Report::Unpacked {
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
    /// Unpacks a layer into an empty directory; returns its seal and its diff-id.
    pub(crate) fn unpack(
        &self,
        directory: &Path,
        form: Form,
        layer: LayerSpec<'_>,
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
            Report::Unpacked { seal, diff_id } => {
                let seal = Seal::parse(&seal).ok_or_else(|| failed("its seal is malformed"))?;
                Ok((seal, diff_id))
            }
            Report::TooManyToIndex(layer) => Err(Error::TooManyToIndex(layer)),
            Report::Failed { code, message } => Err(Error::from_helper(&code, message)),
        }
    }
}

/// A running helper, killed if it is dropped before it ends.
struct Running(Child);

impl Running {
    /// Copies the blob to the helper. If the helper stops reading, its report says why.
    fn feed(&mut self, blob: &mut (dyn Read + Send)) -> Result<(), Error> {
        let Some(mut pipe) = self.0.stdin.take() else {
            return Ok(());
        };
        if let Err(error) = fcntl_setpipe_size(&pipe, PIPE_BYTES) {
            tracing::debug!(%error, "cannot enlarge the pipe to the unpacking process");
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match blob.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::io("read", Path::new(STREAM), source)),
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
            return Err(Error::HelperDied(status.to_string()));
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
