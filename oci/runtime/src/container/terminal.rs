//! A container's terminal: a pair made in its own devpts, whose outer end goes to whoever listens on the console socket.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::Box as Size;
use rustix::{
    fs::OFlags,
    mount::OpenTreeFlags,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    inside::{Links, Root},
    mounts::attach,
    userns::Ids,
};
use crate::channel::{Failure, Step, send_descriptors};

const STEP: &str = "terminal";

/// Both ends.
pub(crate) struct Terminal {
    outer: OwnedFd,
    inner: OwnedFd,
}

/// Makes one, and shows it as `/dev/console`.
pub(crate) fn open(root: &Root, ids: &Ids, size: Option<Size>) -> Result<Terminal, Failure> {
    let terminal = pair(root, size)?;
    let console = Path::new("/dev/console");
    let place = ids.as_root(|| root.file(console, Links::Refused).step(STEP))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&terminal.inner, "", flags).step("/dev/console")?;
    attach(&tree, &place).step("/dev/console")?;
    Ok(terminal)
}

/// Makes one in the devpts of this root. The inner end is what the kernel gives for the outer one: no name is looked up that
/// the container could have changed.
pub(crate) fn pair(root: &Root, size: Option<Size>) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let outer = root
        .open(Path::new("/dev/pts/ptmx"), flags, Links::Refused)
        .step("a terminal needs a devpts on /dev/pts")?;
    if rustix::fs::fstat(&outer).step(STEP)?.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Failure::new(STEP, "/dev/pts/ptmx is no terminal device"));
    }
    unlockpt(&outer).step(STEP)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let inner = ioctl_tiocgptpeer(&outer, flags).step(STEP)?;
    if let Some(size) = size {
        let cells = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cells(size.height()),
            ws_col: cells(size.width()),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&outer, size).step("consoleSize")?;
    }
    Ok(Terminal { outer, inner })
}

impl Terminal {
    /// Sends the outer end over the console socket and gives the inner one, which becomes this session's terminal.
    pub(crate) fn hand_over(self, console: &OwnedFd) -> Result<[OwnedFd; 3], Failure> {
        send_descriptors(console, b"/dev/ptmx", &[self.outer.as_fd()]).step("console socket")?;
        rustix::process::ioctl_tiocsctty(&self.inner).step(STEP)?;
        let copy = || self.inner.try_clone().step(STEP);
        Ok([copy()?, copy()?, copy()?])
    }
}
