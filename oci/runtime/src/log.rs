//! Error messages in runc's format, on stderr and in the log file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tucano_oci_runtime::arguments::LogFormat;

/// Destination of messages.
pub(crate) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    /// Messages on stderr alone.
    pub(crate) fn on_stderr() -> Self {
        Self {
            file: None,
            format: LogFormat::Text,
        }
    }

    /// Fails if the file cannot be written: a caller that names one reads the reasons of failures there alone.
    pub(crate) fn open(file: Option<PathBuf>, format: LogFormat) -> Result<Self, String> {
        // A pipe is opened with the first message: that waits for a reader, who sees the end of it with each closing.
        if let Some(path) = file.as_ref().filter(|path| !is_special(path)) {
            append_to(path).map_err(|error| format!("the log file {}: {error}", path.display()))?;
        }
        Ok(Self { file, format })
    }

    /// Logs the reason of a failure.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Logs a warning.
    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    /// With a log file, stderr gets the plain message.
    fn write(&self, level: &str, message: &str) {
        let Some(path) = &self.file else {
            eprintln!("{}", line(LogFormat::Text, level, message));
            return;
        };
        eprintln!("{message}");
        let written = append_to(path)
            .and_then(|mut file| writeln!(file, "{}", line(self.format, level, message)));
        if let Err(error) = written {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// Whether the path leads to something else than a regular file or a directory.
fn is_special(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| !file.is_file() && !file.is_dir())
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn line(format: LogFormat, level: &str, message: &str) -> String {
    let time = jiff::Timestamp::now();
    match format {
        LogFormat::Json => {
            serde_json::json!({"level": level, "msg": message, "time": time.to_string()})
                .to_string()
        }
        LogFormat::Text => {
            let quoted = serde_json::Value::from(message);
            format!("time=\"{time}\" level={level} msg={quoted}")
        }
    }
}

#[cfg(test)]
mod tests;
