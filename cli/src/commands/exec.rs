//! `exec`: runs a command in a process's container, with this terminal or with the standard streams.

use std::{
    io::{self, IsTerminal, Read, Write},
    thread,
};

use rustix::{
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tucano_api::ids::ProcessId;
use tucano_oci_session::{Begin, Decoder, End, Frame, FromClient, Size, Terminal, ToClient};

use super::logs::name;
use crate::{Error, args::Exec, client::Client, output};

/// Most that is read at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// Header of the controller's answer: the process in whose container the command runs.
const PROCESS: &str = "Tucano-Process";

pub(super) async fn run(client: &Client, exec: &Exec) -> Result<(), Error> {
    let response = open(client, exec).await?;
    let process = response.headers().get(PROCESS);
    let process = process.and_then(|value| value.to_str().ok().map(str::to_owned));
    let transfer_error = client.transfer_error("the session");
    let mut connection = response.upgrade().await.map_err(transfer_error)?;
    let terminal = has_terminal(exec).then(own_terminal);
    let begin = Begin {
        command: exec.command.clone(),
        terminal: terminal.clone(),
    };
    let raw = terminal.map(|_| RawMode::enable()).transpose()?;
    let end = relay(&mut connection, begin).await;
    drop(raw);
    let lost = |error: io::Error| Error::Transfer {
        step: "the session",
        api: client.api().to_owned(),
        reason: error.to_string(),
    };
    match end.map_err(lost)? {
        End::Exited(0) => Ok(()),
        End::Exited(code) => Err(Error::Command(u8::try_from(code).unwrap_or(u8::MAX))),
        End::Failed(why) => {
            let place = process.unwrap_or_else(|| exec.name.clone());
            Err(Error::NotRun(format!("{place}: {why}")))
        }
    }
}

/// A process's name may also be the name of a service, which then takes precedence.
async fn open(client: &Client, exec: &Exec) -> Result<reqwest::Response, Error> {
    let name = name(&exec.name)?;
    match client.upgrade(&format!("/v1/services/{name}/exec")).await {
        Err(Error::NotFound(_)) if name.parse::<ProcessId>().is_ok() => {
            client.upgrade(&format!("/v1/processes/{name}/exec")).await
        }
        result => result,
    }
}

/// Unless options say otherwise: when standard input and output are terminals, as with `ssh`.
fn has_terminal(exec: &Exec) -> bool {
    let on_terminal = || io::stdin().is_terminal() && io::stdout().is_terminal();
    exec.terminal || (!exec.no_terminal && on_terminal())
}

fn own_terminal() -> Terminal {
    Terminal {
        name: std::env::var("TERM").ok(),
        size: own_size().unwrap_or(Size {
            columns: 80,
            rows: 24,
        }),
    }
}

fn own_size() -> Option<Size> {
    let size = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout()));
    let size = size.ok().filter(|size| size.ws_col > 0)?;
    Some(Size {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// Raw mode of this terminal while this lives: the command's terminal interprets what is typed.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enable() -> Result<Self, Error> {
        let before = tcgetattr(stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(|error| Error::Output {
                source: error.into(),
            })?;
        }
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            tcsetattr(stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Relays input and output until the command ends.
async fn relay(connection: &mut reqwest::Upgraded, begin: Begin) -> io::Result<End> {
    let has_terminal = begin.terminal.is_some();
    let (mut from, mut to) = tokio::io::split(connection);
    to.write_all(&FromClient::Begin(begin).encode()).await?;
    to.flush().await?;
    let mut input = read_input();
    let mut resized = signal(SignalKind::window_change())?;
    let outgoing = async {
        loop {
            let frame = tokio::select! {
                Some(bytes) = input.recv() => FromClient::Input(bytes),
                size = next_size(&mut resized), if has_terminal => FromClient::Resize(size),
                else => std::future::pending().await,
            };
            to.write_all(&frame.encode()).await?;
            // TLS keeps what the socket does not take at once: without this, the last frame could stay there.
            to.flush().await?;
        }
    };
    tokio::select! {
        end = show_output(&mut from) => end,
        failed = outgoing => failed,
    }
}

async fn next_size(resized: &mut Signal) -> Size {
    loop {
        resized.recv().await;
        if let Some(size) = own_size() {
            return size;
        }
    }
}

/// Chunks of standard input; an empty one at its end. The thread may block in a read until the program ends.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = match io::stdin().lock().read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.unwrap_or_default(),
            };
            let is_over = sender.blocking_send(buffer[..length].to_vec()).is_err();
            if is_over || length == 0 {
                return;
            }
        }
    });
    receiver
}

/// Writes the command's output until it ends.
async fn show_output(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<End> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::Error::other(
                "the connection was closed before the command ended",
            ));
        }
        decoder.push(&buffer[..length]);
        while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            match frame {
                ToClient::Output(bytes) => output::bytes(&bytes).map_err(io::Error::other)?,
                ToClient::ErrorOutput(bytes) => {
                    // A closed standard error must not end the command.
                    io::stderr().lock().write_all(&bytes).ok();
                }
                ToClient::End(end) => return Ok(end),
            }
        }
    }
}
