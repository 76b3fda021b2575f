//! Pid 1 of a container that asks for one ([`crate::launch::Launch::init`]): forwards signals to the image's program, reaps
//! processes whose parent has ended, and ends when the program ends.
//!
//! It is a fork of the process that becomes the program, so it is under the same filters and restrictions. It executes no
//! file, of the image or of the host, holds one descriptor, and is not dumpable: nothing in the container can read its
//! memory or reach its program (CVE-2019-5736). Of the capabilities it keeps KILL alone, which reaches no process outside
//! the container: its program may have changed to another user.

use std::os::fd::{AsFd, OwnedFd};

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus};

use crate::{
    channel::{Failure, Step},
    signals, sys, title,
};

const STEP: &str = "init";

/// Length of the message in which the init reports the end of the program.
const MESSAGE_BYTES: usize = 8;

/// How the program ended: exit code, or number of the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProgramEnd {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl ProgramEnd {
    fn of(status: WaitStatus) -> Self {
        Self {
            code: status.exit_status(),
            signal: status.terminating_signal(),
        }
    }

    fn write(self) -> [u8; MESSAGE_BYTES] {
        let numbers = [self.code.unwrap_or(-1), self.signal.unwrap_or(0)];
        let mut message = [0; MESSAGE_BYTES];
        message[..4].copy_from_slice(&numbers[0].to_le_bytes());
        message[4..].copy_from_slice(&numbers[1].to_le_bytes());
        message
    }

    /// Reads what the init reported; none if it was killed before that.
    pub(crate) fn read(from: &OwnedFd) -> Option<Self> {
        rustix::io::ioctl_fionbio(from, true).ok()?;
        let mut message = [0; MESSAGE_BYTES];
        let length = rustix::io::read(from, &mut message).ok()?;
        let (numbers, _) = message.as_chunks();
        let [code, signal] =
            [numbers.first()?, numbers.get(1)?].map(|bytes| i32::from_le_bytes(*bytes));
        (length == MESSAGE_BYTES).then_some(Self {
            code: (code >= 0).then_some(code),
            signal: (signal > 0).then_some(signal),
        })
    }

    /// The exit code of an init: a pid 1 cannot end itself by a signal.
    fn exit_code(self) -> i32 {
        match (self.code, self.signal) {
            (Some(code), _) => code,
            (None, signal) => 128 + signal.unwrap_or(0),
        }
    }
}

/// Forks. Returns in the child, which executes the program. The parent is the init and never returns; it reports the end
/// of the program to `report`.
pub(crate) fn fork_program(report: &OwnedFd) -> Result<(), Failure> {
    sys::block_signals().step(STEP)?;
    match sys::fork().step(STEP)? {
        Some(program) => {
            let code = run(program, report);
            sys::exit(code)
        }
        None => {
            // A signal to its own process group must not reach the init, which would forward it.
            rustix::process::setsid().step(STEP)?;
            sys::reset_signals().step(STEP)
        }
    }
}

/// Runs the init. Returns its exit code.
fn run(program: Pid, report: &OwnedFd) -> i32 {
    // Without one of these steps the container would be less protected: it ends instead.
    if let Err(failure) = drop_everything(report) {
        drop(failure);
        return 1;
    }
    sys::release_memory(&[]);
    loop {
        match sys::wait_for_signal() {
            libc::SIGCHLD => {
                if let Some(end) = reap(program) {
                    // The supervisor may have been killed; then so is this process.
                    rustix::io::write(rustix::stdio::stdin(), &end.write()).ok();
                    return end.exit_code();
                }
            }
            number => {
                let signal = signals::from_number(number);
                // The program may have ended just now.
                signal.and_then(|signal| rustix::process::kill_process(program, signal).ok());
            }
        }
    }
}

/// Keeps the descriptor for the report, as stdin, and the capability to signal the program.
fn drop_everything(report: &OwnedFd) -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step(STEP)?;
    rustix::thread::set_name(c"init").step(STEP)?;
    // They are the supervisor's, and name directories of the host.
    title::replace("init");
    rustix::process::chdir("/").step(STEP)?;
    rustix::stdio::dup2_stdin(report.as_fd()).step(STEP)?;
    sys::close_from(1).step(STEP)?;
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted)
        .step(STEP)?
        .into_iter()
        .filter(|one| *one == Capability::CAP_KILL)
        .collect();
    caps::clear(None, CapSet::Ambient).step(STEP)?;
    caps::clear(None, CapSet::Inheritable).step(STEP)?;
    caps::set(None, CapSet::Effective, &kept).step(STEP)?;
    caps::set(None, CapSet::Permitted, &kept).step(STEP)
}

/// Reaps every child that has ended. Returns the end of the program.
fn reap(program: Pid) -> Option<ProgramEnd> {
    let mut end = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            end = Some(ProgramEnd::of(status));
        }
    }
    end
}

#[cfg(test)]
mod tests;
