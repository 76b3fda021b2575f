//! Records the program of a session, whose frames pass through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tucano_api::ids::ProcessId;
use tucano_oci_session::{Decoder, FromClient};

use super::shown;

/// A client's connection. Nothing is changed or delayed; the first frame, which has the command, is recorded.
#[derive(Debug)]
pub struct CommandRecorder<T> {
    client: T,
    process: ProcessId,
    /// Until the command is known, or the stream turns out to be malformed, which the agent refuses.
    decoder: Option<Decoder>,
}

impl<T> CommandRecorder<T> {
    /// Reads from `client`, which runs a command in `process`.
    pub fn new(client: T, process: ProcessId) -> Self {
        Self {
            client,
            process,
            decoder: Some(Decoder::default()),
        }
    }

    fn inspect(&mut self, bytes: &[u8]) {
        let Some(mut decoder) = self.decoder.take() else {
            return;
        };
        decoder.push(bytes);
        match decoder.next_frame::<FromClient>() {
            Ok(Some(FromClient::Begin(begin))) => {
                // Arguments may hold secrets.
                let Some((program, arguments)) = begin.command.split_first() else {
                    return;
                };
                let (process, program, arguments) =
                    (&self.process, shown(program), arguments.len());
                tracing::info!(
                    target: "audit",
                    action = "command", %process, program, arguments,
                    "a command is run in {process}: {program} with {arguments} arguments"
                );
            }
            Ok(None) => self.decoder = Some(decoder),
            _ => {}
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CommandRecorder<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.client).poll_read(context, buffer))?;
        self.inspect(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CommandRecorder<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_shutdown(context)
    }
}
