//! The order of a container's cgroup and its process.

use super::Cgroup;

/// When the container's cgroup is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupTiming {
    /// Before the process, which is then cloned into it. Used on v2, where moving a process into a cgroup blocks.
    Before,
    /// While the process sets itself up; the process joins when it needs to. Used on v1.
    Meanwhile,
    /// After the process, which waits for it. Used with systemd, which needs a pid to create the scope.
    After,
}

impl CgroupTiming {
    pub(crate) fn of(cgroup: &Cgroup, by_systemd: bool) -> Self {
        match (by_systemd, cgroup.is_unified()) {
            (true, _) => Self::After,
            (false, true) => Self::Before,
            (false, false) => Self::Meanwhile,
        }
    }
}
