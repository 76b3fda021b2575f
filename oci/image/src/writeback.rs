//! Has the disk write what is large while it is made: who waits for it in the end waits for the last bit alone.

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

/// Time between two times. What changes more than once in between, such as a directory's blocks, is written once.
const EVERY: Duration = Duration::from_millis(500);

/// Does `work` while the file system of `directory` is written to the disk again and again, by one at a time of those
/// who share `turn`. What is not written by then, or could not be, is up to the caller.
pub(crate) fn tree_beside<T>(directory: &File, turn: &Mutex<()>, work: impl FnOnce() -> T) -> T {
    let write = || match turn.try_lock() {
        Ok(_turn) => Ok(rustix::fs::syncfs(directory)?),
        // Somebody is at it.
        Err(_) => Ok(()),
    };
    repeat_beside(EVERY, write, work)
}

/// The same with one file, and nothing else.
pub(crate) fn file_beside<T>(file: &File, work: impl FnOnce() -> T) -> T {
    repeat_beside(EVERY, || file.sync_data(), work)
}

fn repeat_beside<T>(
    every: Duration,
    write: impl Fn() -> io::Result<()> + Send,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        // Within the scope: it waits for the thread after a panic too.
        let (at_work, ended) = channel::<()>();
        let write = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = write() {
                    tracing::debug!(%error, "what is made is not written to the disk meanwhile");
                    return;
                }
            }
        };
        let writer = thread::Builder::new().name("write back".to_owned());
        if let Err(error) = writer.spawn_scoped(scope, write) {
            tracing::debug!(%error, "what is made is written to the disk at its end only");
        }
        let done = work();
        drop(at_work);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_written_again_and_again_while_others_work() {
        let (written, writes) = channel();
        let write = move || written.send(()).map_err(io::Error::other);
        let done = repeat_beside(SOON, write, || writes.iter().take(3).count());
        assert_eq!(done, 3);
    }

    #[test]
    fn a_failure_ends_the_writing_and_not_the_work() {
        let (written, writes) = channel::<()>();
        let times = AtomicUsize::new(0);
        let times = &times;
        let write = move || {
            times.fetch_add(1, Relaxed);
            let _dropped_with_the_thread = &written;
            Err(io::Error::other("no"))
        };
        // Until the writer has ended.
        let done = repeat_beside(SOON, write, || writes.iter().count());
        assert_eq!((done, times.load(Relaxed)), (0, 1));
    }

    #[test]
    #[should_panic(expected = "at work")]
    fn a_panic_at_work_is_passed_on() {
        repeat_beside(SOON, || Ok(()), || panic!("at work"));
    }
}
