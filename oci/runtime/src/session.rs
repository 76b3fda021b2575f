//! `tucano_oci session`: runs a command in a container for a remote client. Its streams are relayed through this
//! program's standard streams, in frames (`tucano_oci_session`), with or without a terminal.
//!
//! It is single-threaded and buffers one frame of input at a time, so a command or a client that does not read applies
//! backpressure. When the client disconnects, the command is killed.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use oci_spec::runtime::{BoxBuilder, Process};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fchmod, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    stdio::stdin,
    termios::{Winsize, tcsetwinsize},
};
use tucano_oci_session::{Begin, Decoder, End, Frame, FromClient, Size, Terminal, ToClient};

use crate::{
    channel::{Failure, Step},
    container::{process_of, start_options::Stdio},
    exec::{Child, TargetContainer},
    lifecycle::receive_terminal,
};

/// How long a client may take to send its first frame.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of bytes per read.
const CHUNK_BYTES: usize = 16 << 10;

/// Maximum length of a terminal's name (`TERM`) in bytes.
const TERMINAL_NAME_BYTES: usize = 64;

/// End of input in a terminal (Ctrl-D).
const END_OF_TRANSMISSION: u8 = 4;

/// Serves a session. The returned code is this program's, not the command's.
///
/// # Errors
/// The client is gone; the command has been killed.
pub fn run(state_dir: &Path) -> Result<i32, String> {
    crate::exe::protect().map_err(|error| error.to_string())?;
    let mut client = Client::default();
    let end = match client
        .begin()
        .and_then(|begin| serve(state_dir, &begin, &mut client))
    {
        Ok(code) => End::Exited(code),
        Err(failure) => End::Failed(failure.to_string()),
    };
    client
        .send(&ToClient::End(end))
        .map_err(|error| format!("the client: {error}"))?;
    Ok(0)
}

fn serve(state_dir: &Path, begin: &Begin, client: &mut Client) -> Result<i32, Failure> {
    if begin.command.is_empty() {
        return Err(Failure::new("command", "the command is empty"));
    }
    let host = TargetContainer::open(state_dir)?;
    let mut process = process_of(&host.launch.spec)?.clone();
    let (stdio, local) = match &begin.terminal {
        None => pipes().step("stdio")?,
        Some(terminal) => {
            adapt(&mut process, terminal);
            let (here, there) = UnixStream::pair().step("terminal")?;
            let console = there.into();
            (
                Stdio::Terminal {
                    console,
                    relayed: false,
                },
                LocalEnds::Terminal(here.into()),
            )
        }
    };
    let child = host.start(&process, stdio, &begin.command)?;
    let relayed = Session::new(&child, local)
        .step("stdio")
        .and_then(|mut session| session.relay(client));
    if relayed.is_err() {
        child.kill();
    }
    let code = child.reap().step("waiting")?;
    relayed.map(|()| code)
}

/// Adjusts the command's environment and console size to the client's terminal.
fn adapt(process: &mut Process, terminal: &Terminal) {
    let is_plain = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
        !name.is_empty() && name.len() <= TERMINAL_NAME_BYTES && name.bytes().all(plain)
    };
    let name = terminal.name.as_deref().filter(is_plain).unwrap_or("xterm");
    let mut environment = process.env().clone().unwrap_or_default();
    environment.retain(|entry| !entry.starts_with("TERM="));
    environment.push(format!("TERM={name}"));
    let size = BoxBuilder::default()
        .width(u64::from(terminal.size.columns))
        .height(u64::from(terminal.size.rows))
        .build();
    process
        .set_env(Some(environment))
        .set_console_size(size.ok());
}

/// The session's ends of the command's streams.
enum LocalEnds {
    Pipes {
        input: OwnedFd,
        output: OwnedFd,
        error_output: OwnedFd,
    },
    /// The socket that delivers the terminal's master.
    Terminal(OwnedFd),
}

fn pipes() -> io::Result<(Stdio, LocalEnds)> {
    // The command may open them again (`/dev/stdin`), as another user, too.
    let pipe = |mode: u32| {
        let pipe = pipe_with(PipeFlags::CLOEXEC)?;
        fchmod(&pipe.0, Mode::from_raw_mode(mode))?;
        io::Result::Ok(pipe)
    };
    let (stdin, input) = pipe(0o644)?;
    let ((output, stdout), (error_output, stderr)) = (pipe(0o622)?, pipe(0o622)?);
    let local = LocalEnds::Pipes {
        input,
        output,
        error_output,
    };
    Ok((Stdio::Streams([stdin, stdout, stderr]), local))
}

/// The client, on this program's standard streams.
#[derive(Default)]
struct Client {
    decoder: Decoder,
}

impl Client {
    /// Receives the first frame.
    fn begin(&mut self) -> Result<Begin, Failure> {
        const STEP: &str = "client";
        let deadline = Instant::now() + BEGIN_TIMEOUT;
        loop {
            match self.next()? {
                Some(FromClient::Begin(begin)) => return Ok(begin),
                Some(_) => return Err(Failure::new(STEP, "the first frame is not a command")),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut poll_fds = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
            match poll(&mut poll_fds, Some(&left)) {
                Err(Errno::INTR) => continue,
                Ok(0) => return Err(Failure::new(STEP, "no command received")),
                other => other.step(STEP)?,
            };
            self.receive()?;
        }
    }

    /// Reads available input.
    fn receive(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; CHUNK_BYTES];
        match read(stdin(), &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok(0) | Err(_) => Err(Failure::new("client", "disconnected")),
            Ok(length) => {
                self.decoder.push(&buffer[..length]);
                Ok(())
            }
        }
    }

    fn next(&mut self) -> Result<Option<FromClient>, Failure> {
        self.decoder.next_frame().step("client")
    }

    fn send(&self, frame: &ToClient) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame.encode())?;
        stdout.flush()
    }
}

/// An output stream of the command and the frame it is sent in.
type Output = (OwnedFd, fn(Vec<u8>) -> ToClient);

/// A running command and its relayed streams.
struct Session<'a> {
    child: &'a Child,
    input: Option<OwnedFd>,
    /// Input that the command has not taken yet.
    pending: Vec<u8>,
    /// No further input will come.
    is_at_end: bool,
    outputs: Vec<Output>,
    is_terminal: bool,
}

impl<'a> Session<'a> {
    fn new(child: &'a Child, local: LocalEnds) -> io::Result<Self> {
        let is_terminal = matches!(local, LocalEnds::Terminal(_));
        let (input, outputs) = match local {
            LocalEnds::Pipes {
                input,
                output,
                error_output,
            } => {
                let outputs: [Output; 2] = [
                    (output, ToClient::Output),
                    (error_output, ToClient::ErrorOutput),
                ];
                (input, Vec::from(outputs))
            }
            LocalEnds::Terminal(socket) => {
                let terminal = receive_terminal(&socket)?;
                let output = terminal.try_clone()?;
                let outputs: [Output; 1] = [(output, ToClient::Output)];
                (terminal, Vec::from(outputs))
            }
        };
        for fd in outputs.iter().map(|(fd, _)| fd).chain([&input]) {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            child,
            input: Some(input),
            pending: Vec::new(),
            is_at_end: false,
            outputs,
            is_terminal,
        })
    }

    /// Relays until the command exits. An error means that the client is gone or violates the protocol.
    fn relay(&mut self, client: &mut Client) -> Result<(), Failure> {
        loop {
            self.handle_frames(client)?;
            let (has_ended, has_come) = self.wait()?;
            while self.pass_output(client)? && has_ended {
                // Drain the output; other processes that hold the streams are not waited for.
            }
            if has_ended {
                return Ok(());
            }
            if has_come {
                client.receive()?;
            }
        }
    }

    /// Waits for an event. Returns whether the command has exited and whether the client has sent something.
    fn wait(&self) -> Result<(bool, bool), Failure> {
        // Do not read from a client that sends faster than the command reads, but notice its disconnection.
        let listens = if self.pending.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::RDHUP
        };
        let mut poll_fds = vec![
            PollFd::new(&self.child.process, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin(), listens),
        ];
        if let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            poll_fds.push(PollFd::new(input, PollFlags::OUT));
        }
        let outputs = self.outputs.iter();
        poll_fds.extend(outputs.map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        while let Err(error) = poll(&mut poll_fds, None) {
            if error != Errno::INTR {
                return Err(error).step("waiting");
            }
        }
        Ok((
            !poll_fds[0].revents().is_empty(),
            !poll_fds[1].revents().is_empty(),
        ))
    }

    /// Handles frames until one has input that the command must take first.
    fn handle_frames(&mut self, client: &mut Client) -> Result<(), Failure> {
        loop {
            self.write_input();
            if !self.pending.is_empty() {
                return Ok(());
            }
            match client.next()? {
                None => return Ok(()),
                Some(FromClient::Input(bytes)) if bytes.is_empty() => {
                    self.is_at_end = true;
                    if self.is_terminal {
                        self.pending.push(END_OF_TRANSMISSION);
                    }
                }
                Some(FromClient::Input(bytes)) if !self.is_at_end => self.pending = bytes,
                Some(FromClient::Input(_)) => {}
                Some(FromClient::Resize(size)) => self.resize(size),
                Some(FromClient::Begin(_)) => {
                    return Err(Failure::new("client", "a second command"));
                }
            }
        }
    }

    fn resize(&self, size: Size) {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        if let Some(terminal) = self.input.as_ref().filter(|_| self.is_terminal) {
            // A terminal whose other end is closed has no size.
            tcsetwinsize(terminal, size).ok();
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &self.input else {
            return self.pending.clear();
        };
        if !self.pending.is_empty() {
            match write(input, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The command has closed its input.
                Err(_) => self.pending.clear(),
            }
        }
        // A terminal's input and output share a descriptor.
        if self.is_at_end && self.pending.is_empty() && !self.is_terminal {
            self.input = None;
        }
    }

    /// Relays one chunk of each output stream; returns whether there was any.
    fn pass_output(&mut self, client: &Client) -> Result<bool, Failure> {
        let mut buffer = [0; CHUNK_BYTES];
        let (mut ended, mut any) = (Vec::new(), false);
        for (index, (fd, frame)) in self.outputs.iter().enumerate() {
            match read(fd, &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Closed: a pipe returns 0, a terminal an error.
                Ok(0) | Err(_) => ended.push(index),
                Ok(length) => {
                    client
                        .send(&frame(buffer[..length].to_vec()))
                        .step("client")?;
                    any = true;
                }
            }
        }
        for index in ended.into_iter().rev() {
            self.outputs.remove(index);
        }
        Ok(any)
    }
}
