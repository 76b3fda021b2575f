//! `tucano_oci session`: a command in a running container for somebody who is elsewhere. What it reads and writes comes and goes
//! by this program's own standard streams, in frames (`tucano_oci_session`), with or without a terminal.
//!
//! It is single-threaded and keeps nothing but one piece of input at a time: a command that does not read, or a client who does
//! not, makes the other wait. When the client is gone, the command is killed.

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
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    stdio::stdin,
    termios::{Winsize, tcsetwinsize},
};
use tucano_oci_session::{Begin, Decoder, End, Frame, FromClient, Size, Terminal, ToClient};

use crate::{
    channel::{Failure, Step},
    container::{manner::Stdio, process_of},
    exec::{Child, Host},
    lifecycle::receive_terminal,
};

/// How long a client may take to say what it wants.
const BEGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Most that is read at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// Longest name of a terminal that is passed on, in bytes.
const TERMINAL_NAME_BYTES: usize = 64;

/// What a terminal's driver takes for the end of input (Ctrl-D).
const END_OF_TRANSMISSION: u8 = 4;

/// Serves one session; the exit code is that of this program, not of the command.
///
/// # Errors
/// That the client is gone, in words; the command is dead then.
pub fn run(home: &Path) -> Result<i32, String> {
    crate::exe::protect().map_err(|error| error.to_string())?;
    let mut client = Client::default();
    let end = match client
        .begin()
        .and_then(|begin| serve(home, &begin, &mut client))
    {
        Ok(code) => End::Exited(code),
        Err(failure) => End::Failed(failure.to_string()),
    };
    client
        .tell(&ToClient::End(end))
        .map_err(|error| format!("the client: {error}"))?;
    Ok(0)
}

fn serve(home: &Path, begin: &Begin, client: &mut Client) -> Result<i32, Failure> {
    if begin.command.is_empty() {
        return Err(Failure::new("command", "it is empty"));
    }
    let host = Host::open(home)?;
    let mut process = process_of(&host.launch.spec)?.clone();
    let (stdio, ours) = match &begin.terminal {
        None => pipes().step("stdio")?,
        Some(terminal) => {
            adapt(&mut process, terminal);
            let (here, there) = UnixStream::pair().step("terminal")?;
            let console = there.into();
            (Stdio::Terminal { console }, Ours::Terminal(here.into()))
        }
    };
    let child = host.start(&process, stdio, &begin.command)?;
    let relayed = Session::new(&child, ours)
        .step("stdio")
        .and_then(|mut session| session.relay(client));
    if relayed.is_err() {
        child.kill();
    }
    let code = child.reap().step("waiting")?;
    relayed.map(|()| code)
}

/// The command's environment and console suit the client's terminal.
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

/// Our ends of the command's streams.
enum Ours {
    Pipes {
        input: OwnedFd,
        output: OwnedFd,
        error_output: OwnedFd,
    },
    /// The socket over which the terminal comes.
    Terminal(OwnedFd),
}

fn pipes() -> io::Result<(Stdio, Ours)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((stdin, input), (output, stdout), (error_output, stderr)) = (pipe()?, pipe()?, pipe()?);
    let ours = Ours::Pipes {
        input,
        output,
        error_output,
    };
    Ok((Stdio::Given([stdin, stdout, stderr]), ours))
}

/// Who asked for it, at this program's standard streams.
#[derive(Default)]
struct Client {
    decoder: Decoder,
}

impl Client {
    /// What it wants.
    fn begin(&mut self) -> Result<Begin, Failure> {
        const STEP: &str = "client";
        let deadline = Instant::now() + BEGIN_PATIENCE;
        loop {
            match self.next()? {
                Some(FromClient::Begin(begin)) => return Ok(begin),
                Some(_) => return Err(Failure::new(STEP, "its first frame is not what to run")),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut wanted = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
            match poll(&mut wanted, Some(&left)) {
                Err(Errno::INTR) => continue,
                Ok(0) => return Err(Failure::new(STEP, "it does not say what to run")),
                other => other.step(STEP)?,
            };
            self.hear()?;
        }
    }

    /// Reads what has come.
    fn hear(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; CHUNK_BYTES];
        match read(stdin(), &mut buffer) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok(0) | Err(_) => Err(Failure::new("client", "it has gone")),
            Ok(length) => {
                self.decoder.push(&buffer[..length]);
                Ok(())
            }
        }
    }

    fn next(&mut self) -> Result<Option<FromClient>, Failure> {
        self.decoder.next_frame().step("client")
    }

    fn tell(&self, frame: &ToClient) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame.encode())?;
        stdout.flush()
    }
}

/// Where the command writes, and what that is to the client.
type Output = (OwnedFd, fn(Vec<u8>) -> ToClient);

/// A command that runs, and what is on its way to it.
struct Session<'a> {
    child: &'a Child,
    input: Option<OwnedFd>,
    /// Has come, and was not taken yet.
    pending: Vec<u8>,
    /// No more will come.
    is_last: bool,
    outputs: Vec<Output>,
    is_terminal: bool,
}

impl<'a> Session<'a> {
    fn new(child: &'a Child, ours: Ours) -> io::Result<Self> {
        let is_terminal = matches!(ours, Ours::Terminal(_));
        let (input, outputs) = match ours {
            Ours::Pipes {
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
            Ours::Terminal(socket) => {
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
            is_last: false,
            outputs,
            is_terminal,
        })
    }

    /// Until it has ended; an error is that the client is gone, or makes no sense.
    fn relay(&mut self, client: &mut Client) -> Result<(), Failure> {
        loop {
            self.take_frames(client)?;
            let (has_ended, has_come) = self.wait()?;
            while self.pass_output(client)? && has_ended {
                // All that it has written; others who hold its streams are not waited for.
            }
            if has_ended {
                return Ok(());
            }
            if has_come {
                client.hear()?;
            }
        }
    }

    /// Waits for any of them; tells whether the command has ended, and whether something has come from the client.
    fn wait(&self) -> Result<(bool, bool), Failure> {
        // A client who sends more than is taken waits; that it has gone is seen all the same.
        let listens = if self.pending.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::RDHUP
        };
        let mut wanted = vec![
            PollFd::new(&self.child.process, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin(), listens),
        ];
        if let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            wanted.push(PollFd::new(input, PollFlags::OUT));
        }
        let outputs = self.outputs.iter();
        wanted.extend(outputs.map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        while let Err(error) = poll(&mut wanted, None) {
            if error != Errno::INTR {
                return Err(error).step("waiting");
            }
        }
        Ok((
            !wanted[0].revents().is_empty(),
            !wanted[1].revents().is_empty(),
        ))
    }

    /// As many frames as there are, until one has something that the command must take first.
    fn take_frames(&mut self, client: &mut Client) -> Result<(), Failure> {
        loop {
            self.give_input();
            if !self.pending.is_empty() {
                return Ok(());
            }
            match client.next()? {
                None => return Ok(()),
                Some(FromClient::Input(bytes)) if bytes.is_empty() => {
                    self.is_last = true;
                    if self.is_terminal {
                        self.pending.push(END_OF_TRANSMISSION);
                    }
                }
                Some(FromClient::Input(bytes)) if !self.is_last => self.pending = bytes,
                Some(FromClient::Input(_)) => {}
                Some(FromClient::Resize(size)) => self.resize(size),
                Some(FromClient::Begin(_)) => {
                    return Err(Failure::new("client", "it says twice what to run"));
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
            // A terminal whose other end is gone has no size.
            tcsetwinsize(terminal, size).ok();
        }
    }

    fn give_input(&mut self) {
        let Some(input) = &self.input else {
            return self.pending.clear();
        };
        if !self.pending.is_empty() {
            match write(input, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody is there to take it any more.
                Err(_) => self.pending.clear(),
            }
        }
        // A terminal's end is the same descriptor that its output comes by.
        if self.is_last && self.pending.is_empty() && !self.is_terminal {
            self.input = None;
        }
    }

    /// What there is, and no more than a piece of each, so that all have their turns; whether there was any.
    fn pass_output(&mut self, client: &Client) -> Result<bool, Failure> {
        let mut buffer = [0; CHUNK_BYTES];
        let (mut ended, mut any) = (Vec::new(), false);
        for (index, (fd, frame)) in self.outputs.iter().enumerate() {
            match read(fd, &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // All other ends are closed; a terminal says so by an error.
                Ok(0) | Err(_) => ended.push(index),
                Ok(length) => {
                    client
                        .tell(&frame(buffer[..length].to_vec()))
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
