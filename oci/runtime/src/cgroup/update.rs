//! Changes the limits of a cgroup that holds processes.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Cgroup, Error, hierarchy, limits, settings};

impl Cgroup {
    /// Sets the limits that are present and keeps the others; the device rules stay. Moves the processes under
    /// controllers that were not in use so far. Call [`Self::check_memory`] first.
    pub(crate) fn update(&mut self, limits: &LinuxResources) -> Result<(), Error> {
        if let Some(memory) = limits.memory() {
            self.raise_swap_limit(memory)?;
        }
        self.add_controllers(&settings::controllers(Some(limits)))?;
        limits::set_all(self, limits)
    }

    /// With `checkBeforeUpdate`, refuses a memory limit below the current usage: the kernel would kill processes for
    /// it.
    pub(crate) fn check_memory(&self, memory: &LinuxMemory) -> Result<(), Error> {
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit > 0);
        let (true, Some(limit)) = (memory.check_before_update() == Some(true), limit) else {
            return Ok(());
        };
        let used = self.stats()?.memory_current;
        if used <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what: "the memory limit",
            path: limits::required(self, "memory")?.to_owned(),
            reason: format!("{used} bytes are in use, more than the {limit} asked for"),
        })
    }

    /// v1 requires the limit of memory and swap to be the larger one at all times, so it is raised first.
    fn raise_swap_limit(&self, memory: &LinuxMemory) -> Result<(), Error> {
        const NAME: &str = "memory.memsw.limit_in_bytes";
        let directory = limits::required(self, "memory")?;
        let file = directory.join(NAME);
        let swap = memory.swap().filter(|swap| *swap != 0);
        let (Some(swap), true) = (swap, file.exists()) else {
            return Ok(());
        };
        let now: i64 = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(i64::MAX);
        if swap >= 0 && swap <= now {
            return Ok(());
        }
        fs::write(&file, swap.to_string()).map_err(|source| Error::Setting {
            file,
            value: swap.to_string(),
            source,
        })
    }

    fn add_controllers(&mut self, more: &[&str]) -> Result<(), Error> {
        if self.is_unified() {
            let directory = limits::required(self, "")?.to_owned();
            return match directory.parent().filter(|_| !more.is_empty()) {
                Some(parent) => hierarchy::enable_all(parent, more),
                None => Ok(()),
            };
        }
        for controller in more {
            if self.directory(controller).is_none() {
                self.add_controller(controller)?;
            }
        }
        Ok(())
    }

    fn add_controller(&mut self, controller: &str) -> Result<(), Error> {
        let like = limits::required(self, "pids")?;
        let Some(directory) = hierarchy::same_place(controller, "pids", like)? else {
            return Err(Error::NoHierarchy {
                detail: format!("there is no {controller} controller for the limit asked for"),
            });
        };
        super::make(&directory)?;
        if controller == "cpuset" {
            settings::inherit_cpuset(&directory)?;
        }
        for pid in self.processes() {
            join(&directory, pid)?;
        }
        self.directories.push((controller.to_owned(), directory));
        Ok(())
    }
}

fn join(directory: &Path, pid: i32) -> Result<(), Error> {
    match fs::write(directory.join("cgroup.procs"), pid.to_string()) {
        // The process has exited meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map_err(|source| Error::Join {
            pid,
            path: directory.to_owned(),
            source,
        }),
    }
}
