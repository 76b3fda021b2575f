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
        if let Some(path) = &file {
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
mod tests {
    use super::*;

    #[test]
    fn both_formats_hold_the_message() {
        let text = line(LogFormat::Text, "error", "no \"such\" thing");
        assert!(
            text.contains(r#"level=error msg="no \"such\" thing""#),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&line(LogFormat::Json, "error", "a\nb")).unwrap();
        assert_eq!(
            (json["level"].as_str(), json["msg"].as_str()),
            (Some("error"), Some("a\nb"))
        );
    }

    #[test]
    fn the_file_is_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::open(Some(path.clone()), LogFormat::Json).unwrap();
        log.error("one");
        log.warning("two");
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
        let nowhere = directory.path().join("missing/log");
        assert!(Log::open(Some(nowhere), LogFormat::Json).is_err());
    }
}
