//! The programs that work on volumes' files, and the lock that keeps two of them from one file.
//!
//! A program outlives an agent that is killed. It has the lock of its file as its standard input, so the lock is held until the
//! program ends, and the next agent does not start another one on the same file meanwhile.

use std::{
    fs::File,
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::error::{Attempt, Error};

/// The programs, each with its package.
pub(super) const PROGRAMS: [(&str, &str); 5] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("mount", "mount"),
    ("losetup", "mount"),
];

/// The exclusive lock of a volume's file.
#[derive(Debug)]
pub(super) struct ImageLock(File);

impl ImageLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`Error::Locked`]: a program still works on the file.
    pub(super) fn take(image: &Path) -> Result<Self, Error> {
        let file = open(image)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(Error::Locked(image.to_owned())),
            // Some network file systems have no locks.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => Ok(Self(file)),
            Err(errno) => Err(errno).attempt("lock", image),
        }
    }

    /// Runs a program, which has the lock until it ends.
    ///
    /// # Errors
    /// It cannot be run, or fails.
    pub(super) fn run(&self, command: &mut Command) -> Result<(), Error> {
        let output = self.output(command)?;
        successful(command, &output)
    }

    /// The output of a program, which has the lock until it ends.
    pub(super) fn output(&self, command: &mut Command) -> Result<Output, Error> {
        let file = self.0.try_clone();
        let file = file.map_err(|source| not_run(command, &source))?;
        finish(command.stdin(file))
    }
}

impl Drop for ImageLock {
    /// Programs that are started meanwhile have copies of the descriptor for a moment: closing it is not enough.
    fn drop(&mut self) {
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

/// Opens a volume's file.
pub(super) fn open(image: &Path) -> Result<File, Error> {
    let file = File::options().read(true).write(true).open(image);
    file.attempt("open", image)
}

/// Runs a program that works on no volume's file.
pub(super) fn run(command: &mut Command) -> Result<(), Error> {
    let output = output(command)?;
    successful(command, &output)
}

/// The output of a program that works on no volume's file.
pub(super) fn output(command: &mut Command) -> Result<Output, Error> {
    finish(command.stdin(Stdio::null()))
}

/// What a program wrote, in one line.
pub(super) fn text(output: &Output) -> String {
    let all = [&output.stderr[..], &output.stdout[..]].concat();
    let all = String::from_utf8_lossy(&all);
    let words: Vec<&str> = all.split_whitespace().collect();
    let line = words.join(" ");
    match line.is_empty() {
        true => output.status.to_string(),
        false => line.chars().take(500).collect(),
    }
}

fn finish(command: &mut Command) -> Result<Output, Error> {
    let output = command.env("LC_ALL", "C").output();
    // The command would keep the file open.
    command.stdin(Stdio::null());
    output.map_err(|source| not_run(command, &source))
}

fn successful(command: &Command, output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let (program, _) = known(command);
    let detail = text(output);
    Err(Error::Program { program, detail })
}

fn not_run(command: &Command, source: &io::Error) -> Error {
    let (program, package) = known(command);
    match source.kind() {
        io::ErrorKind::NotFound => Error::NoProgram { program, package },
        _ => Error::Program {
            program,
            detail: source.to_string(),
        },
    }
}

fn known(command: &Command) -> (&'static str, &'static str) {
    let name = command.get_program();
    let mut all = PROGRAMS.into_iter();
    all.find(|(program, _)| name == *program)
        .unwrap_or(("a program", "e2fsprogs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_lock_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::write(&image, "").unwrap();
        let lock = ImageLock::take(&image).unwrap();
        // The lock is that of the open file: it lasts until nobody has the file open.
        let output = lock.output(Command::new("cat").arg("/proc/self/fdinfo/0"));
        let output = text(&output.unwrap());
        assert!(output.contains("FLOCK ADVISORY WRITE"), "{output}");
        let refused = ImageLock::take(&image).unwrap_err().to_string();
        assert!(refused.contains("another program works on"), "{refused}");
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        ImageLock::take(&image).unwrap();
        drop(copy);
    }
}
