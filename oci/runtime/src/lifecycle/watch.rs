//! `events`: reports a container's counters periodically, and OOM kills.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify,
    time::Timespec,
};

use super::{
    Error,
    store::{Status, Store},
};
use crate::{
    cgroup::{Cgroup, Stats},
    channel::Step,
};

/// An event of a container.
#[derive(Debug)]
pub enum Event {
    /// Counters.
    Stats(Stats),
    /// The OOM killer killed a process.
    OutOfMemory,
}

/// Reports counters at once and after each interval, and each OOM kill, until the container exits or `tell` returns
/// false.
pub fn watch(
    store: &Store,
    id: &str,
    interval: Duration,
    mut tell: impl FnMut(Event) -> bool,
) -> Result<(), Error> {
    let container = store.find(id)?;
    let cgroup = &container.record.cgroup;
    let process = container.record.container.ok_or(Error::NotRunning)?;
    let process = process.open().step("container")?;
    let process = process
        .filter(|_| container.status() != Status::Stopped)
        .ok_or(Error::NotRunning)?;
    let notifier = OomNotifier::of(cgroup).step("memory")?;
    let mut killed = cgroup.stats()?.oom_kills;
    let mut next = Instant::now();
    loop {
        let Ok(stats) = cgroup.stats() else {
            // The container was deleted meanwhile.
            return Ok(());
        };
        let mut listens = (killed..stats.oom_kills).all(|_| tell(Event::OutOfMemory));
        killed = stats.oom_kills;
        if Instant::now() >= next {
            next += interval;
            listens &= tell(Event::Stats(stats));
        }
        if !listens {
            return Ok(());
        }
        let mut wanted = vec![PollFd::new(&process, PollFlags::IN)];
        wanted.extend(
            notifier
                .iter()
                .map(|notifier| PollFd::new(&notifier.fd, PollFlags::IN)),
        );
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut wanted, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => drop(other.step("waiting")?),
        }
        let ended = !wanted[0].revents().is_empty();
        if let Some(notifier) = &notifier {
            notifier.drain();
        }
        if ended {
            let last = cgroup.stats().map_or(killed, |stats| stats.oom_kills);
            (killed..last).all(|_| tell(Event::OutOfMemory));
            return Ok(());
        }
    }
}

/// Kernel notification about memory pressure; the counters tell whether a process was killed.
struct OomNotifier {
    fd: OwnedFd,
    /// Kept open for the notification.
    _watched: Option<OwnedFd>,
}

impl OomNotifier {
    /// None without a memory controller.
    fn of(cgroup: &Cgroup) -> std::io::Result<Option<Self>> {
        let Some((directory, unified)) = cgroup.memory() else {
            return Ok(None);
        };
        if unified {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let file = directory.join("memory.events");
            inotify::add_watch(&fd, file, inotify::WatchFlags::MODIFY)?;
            return Ok(Some(Self { fd, _watched: None }));
        }
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = fs::File::open(directory.join("memory.oom_control"))?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        fs::write(directory.join("cgroup.event_control"), line)?;
        Ok(Some(Self {
            fd,
            _watched: Some(control.into()),
        }))
    }

    /// Consumes pending notifications.
    fn drain(&self) {
        let mut buffer = [0; 4096];
        while rustix::io::read(self.fd.as_fd(), &mut buffer).is_ok_and(|length| length > 0) {}
    }
}
