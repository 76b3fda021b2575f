//! Commands in containers, as `tucano exec` runs them.

use std::{collections::VecDeque, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tucano_oci_session::{Begin, Decoder, End, FRAME_BYTES, Frame, FromClient, ToClient};

/// Time that a session has to end its command; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of error output that an error has.
const TAIL_BYTES: usize = 600;

/// A running command: its input.
#[derive(Debug)]
pub(super) struct Input(ChildStdin);

/// A running command: its output and its end. Dropping both ends of it kills the command.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Option<ChildStdout>,
    decoder: Decoder,
    tail: VecDeque<u8>,
    child: Option<Child>,
}

/// What a command does.
#[derive(Debug)]
pub(super) enum Said {
    /// It has written this.
    Output(Vec<u8>),
    /// It has ended with success.
    Success,
}

/// Runs a command in the container with this home directory.
///
/// # Errors
/// A message for the user.
pub(super) async fn start(
    runtime: &Path,
    home: &Path,
    command: &[String],
) -> Result<(Input, Output), String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot run {}: {error}", runtime.display());
    let mut child = Command::new(runtime)
        .arg("session")
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(&"a standard stream is missing"));
    };
    let output = Output {
        stdout: Some(stdout),
        decoder: Decoder::default(),
        tail: VecDeque::new(),
        child: Some(child),
    };
    let mut input = Input(stdin);
    let begin = Begin {
        command: command.to_vec(),
        terminal: None,
    };
    // A session that has ended says why.
    input.send(&FromClient::Begin(begin)).await.ok();
    Ok((input, output))
}

impl Input {
    /// Writes to the command's standard input.
    pub(super) async fn data(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(FRAME_BYTES) {
            self.send(&FromClient::Input(piece.to_vec())).await?;
        }
        Ok(())
    }

    /// Ends the command's standard input.
    pub(super) async fn end(&mut self) -> std::io::Result<()> {
        self.send(&FromClient::Input(Vec::new())).await
    }

    async fn send(&mut self, frame: &FromClient) -> std::io::Result<()> {
        self.0.write_all(&frame.encode()).await
    }
}

impl Output {
    /// What the command writes, or its end.
    ///
    /// # Errors
    /// It has failed, or its container has ended. A message for the user, with the end of its error output.
    pub(super) async fn next(&mut self) -> Result<Said, String> {
        let mut buffer = vec![0; FRAME_BYTES];
        loop {
            match self
                .decoder
                .next_frame()
                .map_err(|error| error.to_string())?
            {
                Some(ToClient::Output(bytes)) => return Ok(Said::Output(bytes)),
                Some(ToClient::ErrorOutput(bytes)) => self.remember(&bytes),
                Some(ToClient::End(End::Exited(0))) => return Ok(Said::Success),
                Some(ToClient::End(End::Exited(code))) => return Err(self.exited(code)),
                Some(ToClient::End(End::Failed(reason))) => {
                    return Err(format!("could not be run: {reason}"));
                }
                None => {
                    let stdout = self.stdout.as_mut().ok_or("has ended")?;
                    match stdout.read(&mut buffer).await {
                        Ok(0) => return Err("ended with its container".to_owned()),
                        Ok(length) => self.decoder.push(&buffer[..length]),
                        Err(error) => return Err(format!("cannot be read from: {error}")),
                    }
                }
            }
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    fn exited(&self, code: i32) -> String {
        let (front, back) = self.tail.as_slices();
        let told = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        let told: Vec<&str> = told.split_whitespace().collect();
        match told.is_empty() {
            true => format!("ended with exit code {code}, without error output"),
            false => format!("ended with exit code {code}: {}", told.join(" ")),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A session whose streams are closed ends its command and itself. Killing it would leave the command.
        self.stdout = None;
        if let Some(mut child) = self.child.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                if timeout(END_TIMEOUT, child.wait()).await.is_err() {
                    child.kill().await.ok();
                }
            });
        }
    }
}
