//! `events`: what a container uses, again and again, and when the kernel kills in it for lack of memory.

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

/// Something to tell of a container.
#[derive(Debug)]
pub enum Event {
    /// What it uses.
    Stats(Stats),
    /// The kernel killed in it for lack of memory.
    OutOfMemory,
}

/// Tells what a container uses, at once and after each interval, and of each lack of memory, until it has ended
/// or `tell` says that nobody listens any more.
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
    let lacking = Lacking::of(cgroup).step("memory")?;
    let mut killed = cgroup.stats()?.oom_kills;
    let mut next = Instant::now();
    loop {
        let Ok(stats) = cgroup.stats() else {
            // It was deleted meanwhile.
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
            lacking
                .iter()
                .map(|lacking| PollFd::new(&lacking.tells, PollFlags::IN)),
        );
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut wanted, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => drop(other.step("waiting")?),
        }
        let ended = !wanted[0].revents().is_empty();
        if let Some(lacking) = &lacking {
            lacking.hear();
        }
        if ended {
            let last = cgroup.stats().map_or(killed, |stats| stats.oom_kills);
            (killed..last).all(|_| tell(Event::OutOfMemory));
            return Ok(());
        }
    }
}

/// Where the kernel tells that memory lacks: the counters say whether it killed.
struct Lacking {
    tells: OwnedFd,
    /// Watched as long as it is open.
    _watched: Option<OwnedFd>,
}

impl Lacking {
    /// None where there is no memory controller.
    fn of(cgroup: &Cgroup) -> std::io::Result<Option<Self>> {
        let Some((directory, unified)) = cgroup.memory() else {
            return Ok(None);
        };
        if unified {
            let tells =
                inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let file = directory.join("memory.events");
            inotify::add_watch(&tells, file, inotify::WatchFlags::MODIFY)?;
            return Ok(Some(Self {
                tells,
                _watched: None,
            }));
        }
        let tells = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = fs::File::open(directory.join("memory.oom_control"))?;
        let line = format!("{} {}", tells.as_raw_fd(), control.as_raw_fd());
        fs::write(directory.join("cgroup.event_control"), line)?;
        Ok(Some(Self {
            tells,
            _watched: Some(control.into()),
        }))
    }

    /// Takes what was told, so that it is not told again.
    fn hear(&self) {
        let mut buffer = [0; 4096];
        while rustix::io::read(self.tells.as_fd(), &mut buffer).is_ok_and(|length| length > 0) {}
    }
}
