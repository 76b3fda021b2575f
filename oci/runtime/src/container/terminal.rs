//! A container's terminal: a pseudoterminal in its own devpts, whose master is sent over the console socket.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::Box as Size;
use rustix::{
    fs::OFlags,
    mount::OpenTreeFlags,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use super::{
    mounts::attach,
    resolve::{Root, Symlinks},
    userns::IdMappings,
};
use crate::channel::{Failure, Step, send_descriptors};

const STEP: &str = "terminal";

/// Both ends of a pseudoterminal.
pub(crate) struct Terminal {
    outer: OwnedFd,
    inner: OwnedFd,
}

/// Creates a terminal and binds it to `/dev/console`.
pub(crate) fn open(root: &Root, ids: &IdMappings, size: Option<Size>) -> Result<Terminal, Failure> {
    let terminal = pair(root, size)?;
    let console = Path::new("/dev/console");
    let place = ids.as_root(|| root.file(console, Symlinks::Refuse).step(STEP))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&terminal.inner, "", flags).step("/dev/console")?;
    attach(&tree, &place).step("/dev/console")?;
    Ok(terminal)
}

/// Creates a terminal in the devpts of this root. The kernel opens the slave from the master (TIOCGPTPEER), so that no
/// name is looked up that the container could have changed.
pub(crate) fn pair(root: &Root, size: Option<Size>) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let outer = root
        .open(Path::new("/dev/pts/ptmx"), flags, Symlinks::Refuse)
        .step("a terminal needs a devpts on /dev/pts")?;
    if rustix::fs::fstat(&outer).step(STEP)?.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Failure::new(STEP, "/dev/pts/ptmx is not a terminal device"));
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
    /// Sends the master over the console socket; the slave becomes the controlling terminal and the standard streams.
    pub(crate) fn hand_over(
        self,
        console: &OwnedFd,
        relayed: bool,
    ) -> Result<[OwnedFd; 3], Failure> {
        if relayed {
            let mut modes = tcgetattr(&self.outer).step(STEP)?;
            modes.output_modes.remove(OutputModes::ONLCR);
            tcsetattr(&self.outer, OptionalActions::Now, &modes).step(STEP)?;
        }
        send_descriptors(console, b"/dev/ptmx", &[self.outer.as_fd()]).step("console socket")?;
        rustix::process::ioctl_tiocsctty(&self.inner).step(STEP)?;
        let copy = || self.inner.try_clone().step(STEP);
        Ok([copy()?, copy()?, copy()?])
    }
}
