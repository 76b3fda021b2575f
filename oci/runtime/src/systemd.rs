//! The systemd cgroup driver (`--systemd-cgroup`): systemd creates a transient scope per container. The container's
//! own cgroup lies below the scope, which is delegated; this runtime sets what systemd does not.

mod bus;
mod properties;
mod wire;

use std::{io, path::PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use self::{
    bus::{Bus, Call},
    wire::Value,
};

/// The container's own cgroup below its scope. Its limits and device rules belong to this runtime; systemd rewrites
/// those of the scope at any time.
pub(crate) const CHILD_CGROUP: &str = "container";

/// Default slice.
const DEFAULT_SLICE: &str = "system.slice";

/// Prefix of the scope of a container without a `cgroupsPath`.
const DEFAULT_PREFIX: &str = "tucano_oci";

/// Maximum length of a unit's name (systemd.unit(5)).
const NAME_LIMIT_BYTES: usize = 255;

/// systemd's errors for a missing and an existing unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Why systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd is not available.
    #[error(
        "--systemd-cgroup needs systemd, which does not answer here ({detail}): use the cgroupfs driver, without that option"
    )]
    Absent {
        /// The sockets that were tried.
        detail: String,
    },
    /// The path does not have the driver's form.
    #[error(
        "the cgroup path {0:?} is not of the form \"slice:prefix:name\", which --systemd-cgroup needs"
    )]
    BadPath(String),
    /// Not a valid unit name.
    #[error("{0:?} cannot be the name of a {1} of systemd")]
    BadName(String, &'static str),
    /// Communication with systemd failed.
    #[error("talking to systemd at {socket}: {source}")]
    Talk {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path names a slice.
    #[error(
        "{0:?} names a slice, which systemd keeps no processes in: end the name in linux.cgroupsPath otherwise, and it is that of a scope"
    )]
    Slice(String),
    /// systemd refused the request.
    #[error("systemd refused {method}: {message} ({name})")]
    Refused {
        /// The method.
        method: &'static str,
        /// The error's name.
        name: String,
        /// Its text.
        message: String,
    },
    /// The job failed.
    #[error("systemd's job for {unit} ended with {result:?}: see `systemctl status {unit}`")]
    Job {
        /// The unit.
        unit: String,
        /// Its result.
        result: String,
    },
}

impl Error {
    fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

/// The transient scope of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// Its name.
    unit: String,
    /// The slice that it is in.
    slice: String,
}

impl Scope {
    /// The scope that `linux.cgroupsPath` names; by default named after the container's id.
    pub(crate) fn specified(path: Option<&str>, id: &str) -> Result<Self, Error> {
        let (slice, prefix, name) = match path {
            None | Some("") => (DEFAULT_SLICE, DEFAULT_PREFIX, id),
            Some(path) => {
                let parts: Vec<_> = path.split(':').collect();
                let [slice, prefix, name] = parts[..] else {
                    return Err(Error::BadPath(path.to_owned()));
                };
                let slice = if slice.is_empty() {
                    DEFAULT_SLICE
                } else {
                    slice
                };
                (slice, prefix, name)
            }
        };
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        // Other runtimes treat this as a slice without a scope, for callers that create scopes below it.
        if name.ends_with(".slice") {
            return Err(Error::Slice(name.to_owned()));
        }
        if name.is_empty() || !is_plain(&unit) {
            return Err(Error::BadName(unit, "scope"));
        }
        slice_path(slice)?;
        Ok(Self {
            unit,
            slice: slice.to_owned(),
        })
    }

    /// The path of the container's own cgroup, from the top of the hierarchy.
    pub(crate) fn cgroup_path(&self) -> Result<String, Error> {
        Ok(format!(
            "{}/{}/{CHILD_CGROUP}",
            slice_path(&self.slice)?,
            self.unit
        ))
    }

    /// Creates the scope with a process in it, and waits until that is done.
    pub(crate) fn start(
        &self,
        id: &str,
        pid: i32,
        limits: Option<&LinuxResources>,
        unified: bool,
    ) -> Result<(), Error> {
        let mut bus = Bus::connect()?;
        let properties = self.properties(id, pid, limits, unified);
        match self.try_start(&mut bus, &properties) {
            // A failed scope is kept until it is reset.
            Err(error) if error.is(UNIT_EXISTS) => {
                drop(bus.call(&Call::new("ResetFailedUnit", "s").text(&self.unit)));
                self.try_start(&mut bus, &properties)
            }
            other => other,
        }
    }

    fn properties(
        &self,
        id: &str,
        pid: i32,
        limits: Option<&LinuxResources>,
        unified: bool,
    ) -> Vec<(&'static str, Value)> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut all = vec![
            ("Description", Value::Text(format!("OCI container {id}"))),
            ("Slice", text(&self.slice)),
            ("PIDs", Value::Numbers(vec![pid.unsigned_abs()])),
            ("Delegate", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            ("IOAccounting", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            // The scope ends with its container, independent of the order of the shutdown.
            ("DefaultDependencies", Value::Flag(false)),
            // The scope is removed even if its last process failed.
            ("CollectMode", text("inactive-or-failed")),
        ];
        all.extend(properties::of(limits, unified));
        all
    }

    fn try_start(&self, bus: &mut Bus, properties: &[(&'static str, Value)]) -> Result<(), Error> {
        let call = Call::new("StartTransientUnit", "ssa(sv)a(sa(sv))")
            .text(&self.unit)
            .text("replace")
            .properties(properties)
            .empty_array();
        self.do_job(bus, &call)
    }

    /// Updates the limits of the scope.
    pub(crate) fn update(
        &self,
        limits: Option<&LinuxResources>,
        unified: bool,
    ) -> Result<(), Error> {
        let properties = properties::of(limits, unified);
        if properties.is_empty() {
            return Ok(());
        }
        let call = Call::new("SetUnitProperties", "sba(sv)")
            .text(&self.unit)
            .flag(true)
            .properties(&properties);
        Bus::connect()?.call(&call).map(drop)
    }

    /// Stops the scope and everything in it. A scope that has gone, or a systemd that has, is fine.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        let mut bus = match Bus::connect() {
            Err(Error::Absent { .. }) => return Ok(()),
            other => other?,
        };
        let call = Call::new("StopUnit", "ss").text(&self.unit).text("replace");
        match self.do_job(&mut bus, &call) {
            Err(error) if error.is(NO_SUCH_UNIT) => Ok(()),
            other => other,
        }
    }

    fn do_job(&self, bus: &mut Bus, call: &Call) -> Result<(), Error> {
        let job = bus.call(call)?;
        match bus.wait_for_job(&job)?.as_str() {
            "done" => Ok(()),
            other => Err(Error::Job {
                unit: self.unit.clone(),
                result: other.to_owned(),
            }),
        }
    }
}

/// Checks whether systemd is available.
pub(crate) fn check() -> Result<(), Error> {
    Bus::connect().map(drop)
}

/// Where the cgroup of a slice is: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> Result<String, Error> {
    let bad = || Error::BadName(slice.to_owned(), "slice");
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if name == "-" {
        return Ok(String::new());
    }
    if !is_plain(slice) || name.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push_str(&format!("/{}.slice", &name[..end]));
    }
    Ok(path)
}

/// Accepts names that cannot lead elsewhere in the hierarchy.
fn is_plain(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.\\-".contains(&byte);
    name.len() <= NAME_LIMIT_BYTES && !name.starts_with('.') && name.bytes().all(good)
}

#[cfg(test)]
mod tests;
