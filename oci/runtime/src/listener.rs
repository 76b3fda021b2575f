//! Where a created container waits to be started: a socket in its state directory, which only root can reach.

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

/// The socket's name.
const NAME: &str = "start";

/// The container's end. Nobody can connect once it is closed, as it is by executing the program.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Makes it in this directory.
    pub(crate) fn bind(directory: &Path) -> io::Result<Self> {
        let socket = socket()?;
        with_address(directory, NAME, |address| Ok(bind(&socket, address)?))?;
        listen(&socket, 1)?;
        Ok(Self(socket))
    }

    /// Waits for someone who starts the container.
    pub(crate) fn accept(&self) -> io::Result<Channel> {
        let flags = SocketFlags::CLOEXEC;
        let connection = rustix::io::retry_on_intr(|| accept_with(&self.0, flags))?;
        Ok(Channel::over(connection))
    }
}

/// Reaches the container that waits in this directory.
pub(crate) fn reach(directory: &Path) -> io::Result<Channel> {
    let socket = socket()?;
    with_address(directory, NAME, |address| Ok(connect(&socket, address)?))?;
    Ok(Channel::over(socket))
}

/// Whether a container waits there that nobody has started.
pub(crate) fn is_waiting(directory: &Path) -> bool {
    directory.join(NAME).exists()
}

/// Takes the socket away: nobody else can start the container then.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    std::fs::remove_file(directory.join(NAME))
}

/// One that keeps packets apart.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// An address may have 107 bytes, a path many more: so it goes by a descriptor's number.
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
    fn the_starter_reaches_who_waits_however_long_the_path() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("x".repeat(200));
        std::fs::create_dir(&directory).unwrap();
        assert!(reach(&directory).is_err());
        let listener = Listener::bind(&directory).unwrap();
        assert!(is_waiting(&directory));
        let here = reach(&directory).unwrap();
        here.go().unwrap();
        let there = listener.accept().unwrap();
        there.wait_to_go().unwrap();
        drop((there, listener));
        remove(&directory).unwrap();
        assert!(!is_waiting(&directory) && remove(&directory).is_err());
        assert!(reach(&directory).is_err());
        assert!(here.receive::<u32>().unwrap().is_none());
    }
}
