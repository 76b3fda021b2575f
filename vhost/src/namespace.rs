//! Runs code in the network namespace of another process, on a thread of its own.

use std::{fs::File, io, thread};

use nix::sched::{CloneFlags, setns};

use crate::Error;

/// Runs `work` on a new thread in the network namespace of `pid`; threads that it starts inherit the namespace.
pub(crate) fn enter<T: Send>(pid: i32, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let error = |source| Error::Namespace { pid, source };
    let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(error)?;
    let joined = thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                Ok(work())
            })
            .join()
    });
    match joined {
        Ok(result) => result.map_err(error),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
