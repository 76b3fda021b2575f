//! Flushes large writes to disk early, so that the final sync has little left to write.

use std::{
    fs::File,
    io,
    sync::{
        Mutex,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

/// Time between two flushes. Blocks that change several times in between are written once.
const INTERVAL: Duration = Duration::from_millis(500);

/// Runs `work` while the file system of `directory` is flushed repeatedly, by one thread at a time of those that share
/// `lock`. The caller syncs the rest, and sees its errors.
pub(crate) fn while_flushing_tree<T>(
    directory: &File,
    lock: &Mutex<()>,
    work: impl FnOnce() -> T,
) -> T {
    let write = || match lock.try_lock() {
        Ok(_locked) => Ok(rustix::fs::syncfs(directory)?),
        // Another thread is flushing.
        Err(_) => Ok(()),
    };
    while_repeating(INTERVAL, write, work)
}

/// Like [`while_flushing_tree`], for one file.
pub(crate) fn while_flushing_file<T>(file: &File, work: impl FnOnce() -> T) -> T {
    while_repeating(INTERVAL, || file.sync_data(), work)
}

fn while_repeating<T>(
    every: Duration,
    write: impl Fn() -> io::Result<()> + Send,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        // Created within the scope, which waits for the thread after a panic too.
        let (working, ended) = channel::<()>();
        let write = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = write() {
                    tracing::debug!(%error, "writes are not flushed early");
                    return;
                }
            }
        };
        let writer = thread::Builder::new().name("write back".to_owned());
        if let Err(error) = writer.spawn_scoped(scope, write) {
            tracing::debug!(%error, "writes are flushed at the end only");
        }
        let done = work();
        drop(working);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn flushes_repeat_while_the_work_runs() {
        let (written, writes) = channel();
        let write = move || written.send(()).map_err(io::Error::other);
        let done = while_repeating(SOON, write, || writes.iter().take(3).count());
        assert_eq!(done, 3);
    }

    #[test]
    fn a_failing_flush_does_not_stop_the_work() {
        let (written, writes) = channel::<()>();
        let times = AtomicUsize::new(0);
        let times = &times;
        let write = move || {
            times.fetch_add(1, Relaxed);
            let _dropped_with_the_thread = &written;
            Err(io::Error::other("no"))
        };
        // Until the writer has ended.
        let done = while_repeating(SOON, write, || writes.iter().count());
        assert_eq!((done, times.load(Relaxed)), (0, 1));
    }

    #[test]
    #[should_panic(expected = "at work")]
    fn a_panic_of_the_work_propagates() {
        while_repeating(SOON, || Ok(()), || panic!("at work"));
    }
}
