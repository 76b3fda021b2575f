//! The socket on which a created container waits for `start`, in its state directory, which only root reaches.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use crate::channel::Channel;

/// File name of the socket.
const NAME: &str = "start";

/// The container's end. `execve` closes it.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Binds the socket in a directory.
    pub(crate) fn bind(directory: &Path) -> io::Result<Self> {
        let socket = socket()?;
        with_address(directory, NAME, |address| Ok(bind(&socket, address)?))?;
        listen(&socket, 1)?;
        Ok(Self(socket))
    }

    /// Waits for a starter.
    pub(crate) fn accept(&self) -> io::Result<Channel> {
        let flags = SocketFlags::CLOEXEC;
        let connection = rustix::io::retry_on_intr(|| accept_with(&self.0, flags))?;
        Ok(Channel::over(connection))
    }
}

/// Connects to the container that waits in a directory.
pub(crate) fn reach(directory: &Path) -> io::Result<Channel> {
    let socket = socket()?;
    with_address(directory, NAME, |address| Ok(connect(&socket, address)?))?;
    Ok(Channel::over(socket))
}

/// Whether a container waits in a directory.
pub(crate) fn is_waiting(directory: &Path) -> bool {
    directory.join(NAME).exists()
}

/// Removes the socket, so that nobody else can start the container.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    std::fs::remove_file(directory.join(NAME))
}

/// Creates a socket that preserves message boundaries.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Addresses a socket through its directory's descriptor: an address is limited to 107 bytes, a path is not.
pub(crate) fn with_address<T>(
    directory: &Path,
    name: &str,
    work: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    let directory = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    work(&SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_socket_works_with_long_paths() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("x".repeat(200));
        std::fs::create_dir(&directory).unwrap();
        assert!(reach(&directory).is_err());
        let listener = Listener::bind(&directory).unwrap();
        assert!(is_waiting(&directory));
        let here = reach(&directory).unwrap();
        here.proceed().unwrap();
        let there = listener.accept().unwrap();
        there.wait_for_proceed().unwrap();
        drop((there, listener));
        remove(&directory).unwrap();
        assert!(!is_waiting(&directory) && remove(&directory).is_err());
        assert!(reach(&directory).is_err());
        assert!(here.receive::<u32>().unwrap().is_none());
    }
}
