//! A connection to systemd's manager: over its private socket, which root may use, or else over the system bus.
//! Blocking, because this process clones itself; every operation has a time limit.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    Error,
    wire::{
        DESTINATION, ERROR, FIXED_BYTES, INTERFACE, MEMBER, Message, PATH, RETURN, SIGNAL, Value,
        Writer, call,
    },
};

/// systemd's private socket.
const PRIVATE: &str = "/run/systemd/private";
/// The system bus.
const SYSTEM: &str = "/run/dbus/system_bus_socket";

/// Time limit of a reply or a job.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum length of a line during authentication.
const LINE_LIMIT_BYTES: usize = 1024;

/// Maximum number of finished jobs that are remembered while waiting for a reply.
const MAX_REMEMBERED_JOBS: usize = 256;

const MANAGER: [(u8, &str); 3] = [
    (DESTINATION, "org.freedesktop.systemd1"),
    (PATH, "/org/freedesktop/systemd1"),
    (INTERFACE, "org.freedesktop.systemd1.Manager"),
];
const BUS: [(u8, &str); 3] = [
    (DESTINATION, "org.freedesktop.DBus"),
    (PATH, "/org/freedesktop/DBus"),
    (INTERFACE, "org.freedesktop.DBus"),
];

/// Match rule for finished jobs on the bus; the private socket sends them without one.
const WANTED: &str = "type='signal',sender='org.freedesktop.systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A method call to systemd's manager.
#[derive(Debug)]
pub(super) struct Call {
    of: [(u8, &'static str); 3],
    method: &'static str,
    signature: &'static str,
    body: Writer,
}

impl Call {
    /// A call whose arguments have these types.
    pub(super) fn new(method: &'static str, signature: &'static str) -> Self {
        Self {
            of: MANAGER,
            method,
            signature,
            body: Writer::default(),
        }
    }

    fn of_bus(method: &'static str, signature: &'static str) -> Self {
        Self {
            of: BUS,
            ..Self::new(method, signature)
        }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.body.text(text);
        self
    }

    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.body.flag(flag);
        self
    }

    pub(super) fn properties(mut self, all: &[(&'static str, Value)]) -> Self {
        self.body.properties(all);
        self
    }

    /// An empty array of structures.
    pub(super) fn empty_array(mut self) -> Self {
        self.body.array(8, |_| {});
        self
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    socket: PathBuf,
    serial: u32,
    /// Finished jobs and their results.
    ended: Vec<(String, String)>,
}

impl Bus {
    pub(super) fn connect() -> Result<Self, Error> {
        let tried = |socket: &str, error: &io::Error| format!("{socket}: {error}");
        let own = match UnixStream::connect(PRIVATE) {
            Ok(stream) => return Self::begin(stream, PRIVATE),
            Err(error) => tried(PRIVATE, &error),
        };
        let stream = UnixStream::connect(SYSTEM).map_err(|error| Error::Absent {
            detail: format!("{own}; {}", tried(SYSTEM, &error)),
        })?;
        let mut bus = Self::begin(stream, SYSTEM)?;
        bus.call(&Call::of_bus("Hello", ""))?;
        bus.call(&Call::of_bus("AddMatch", "s").text(WANTED))?;
        bus.call(&Call::new("Subscribe", ""))?;
        Ok(bus)
    }

    /// Authenticates with this process's uid, which the kernel confirms.
    fn begin(stream: UnixStream, socket: &str) -> Result<Self, Error> {
        let mut bus = Self {
            stream,
            socket: socket.into(),
            serial: 0,
            ended: Vec::new(),
        };
        bus.authenticate().map_err(|source| bus.failed(source))?;
        Ok(bus)
    }

    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let deadline = Instant::now() + TIMEOUT;
        self.stream.set_write_timeout(Some(TIMEOUT))?;
        // Sent at once: systemd forgets what it reads together with BEGIN until more arrives. Its reply shows that it
        // has read BEGIN, and the first message is sent after that.
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > LINE_LIMIT_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !line.starts_with(b"OK ") {
            let line = String::from_utf8_lossy(&line);
            return Err(io::Error::other(format!(
                "authentication failed: {}",
                line.trim()
            )));
        }
        Ok(())
    }

    /// Calls a method. Returns the first value of the reply if it is a string, else an empty string.
    pub(super) fn call(&mut self, wanted: &Call) -> Result<String, Error> {
        self.serial += 1;
        let mut fields = wanted.of.to_vec();
        fields.push((MEMBER, wanted.method));
        let bytes = call(self.serial, &fields, wanted.signature, &wanted.body);
        let deadline = Instant::now() + TIMEOUT;
        self.stream
            .write_all(&bytes)
            .map_err(|source| self.failed(source))?;
        loop {
            let message = self.receive(deadline)?;
            let is_answer = message.reply_to == self.serial;
            match message.kind {
                RETURN if is_answer => return Ok(message.text().unwrap_or_default()),
                ERROR if is_answer => {
                    return Err(Error::Refused {
                        method: wanted.method,
                        message: message.text().unwrap_or_default(),
                        name: message.name,
                    });
                }
                _ => self.remember(&message),
            }
        }
    }

    /// Waits for a job and returns its result.
    pub(super) fn wait_for_job(&mut self, job: &str) -> Result<String, Error> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == job) {
                return Ok(result.clone());
            }
            let message = self.receive(deadline)?;
            self.remember(&message);
        }
    }

    fn remember(&mut self, message: &Message) {
        if message.kind != SIGNAL || message.name != "JobRemoved" {
            return;
        }
        if let Ok(job) = message.removed_job() {
            if self.ended.len() == MAX_REMEMBERED_JOBS {
                self.ended.remove(0);
            }
            self.ended.push(job);
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Error> {
        self.try_receive(deadline)
            .map_err(|source| self.failed(source))
    }

    fn try_receive(&mut self, deadline: Instant) -> io::Result<Message> {
        let mut fixed = [0; FIXED_BYTES];
        self.read(&mut fixed, deadline)?;
        let mut bytes = vec![0; Message::length(&fixed)?];
        bytes[..FIXED_BYTES].copy_from_slice(&fixed);
        self.read(&mut bytes[FIXED_BYTES..], deadline)?;
        Message::parse(&bytes)
    }

    fn read(&mut self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // How the kernel reports the read time-out.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Talk {
            socket: self.socket.clone(),
            source,
        }
    }
}
