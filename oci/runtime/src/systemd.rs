//! Containers' cgroups by the systemd driver (`--systemd-cgroup`): systemd makes a transient scope for each, and all that it
//! does not do itself happens in a cgroup of the container's own below it, which is delegated.

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

/// The container's own cgroup below its scope. Its limits and device rules are ours: those of the scope systemd writes anew
/// whenever it likes.
pub(crate) const BELOW: &str = "container";

/// Where scopes are that name no slice.
const DEFAULT_SLICE: &str = "system.slice";

/// The prefix of scopes of containers without a `cgroupsPath`.
const DEFAULT_PREFIX: &str = "tucano_oci";

/// Longest name of a unit (systemd.unit(5)).
const NAME_LIMIT_BYTES: usize = 255;

/// What systemd answers where a unit is not there, and where one is already.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to ask.
    #[error(
        "--systemd-cgroup needs systemd, which does not answer here ({detail}): use the cgroupfs driver, without that option"
    )]
    Absent {
        /// Which sockets were tried.
        detail: String,
    },
    /// Not of the form that the driver takes.
    #[error(
        "the cgroup path {0:?} is not of the form \"slice:prefix:name\", which --systemd-cgroup needs"
    )]
    BadPath(String),
    /// A name that no unit can have.
    #[error("{0:?} cannot be the name of a {1} of systemd")]
    BadName(String, &'static str),
    /// The conversation broke off.
    #[error("talking to systemd at {socket}: {source}")]
    Talk {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A unit that holds other units only.
    #[error(
        "{0:?} names a slice, which systemd keeps no processes in: end the name in linux.cgroupsPath otherwise, and it is that of a scope"
    )]
    Slice(String),
    /// It refused.
    #[error("systemd refused {method}: {message} ({name})")]
    Refused {
        /// What was asked for.
        method: &'static str,
        /// The error's name.
        name: String,
        /// Its text.
        message: String,
    },
    /// It tried and failed.
    #[error("systemd's job for {unit} ended with {result:?}: see `systemctl status {unit}`")]
    Job {
        /// The unit.
        unit: String,
        /// How.
        result: String,
    },
}

impl Error {
    fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

/// The transient unit that holds a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// Its name.
    unit: String,
    /// The slice that it is in.
    slice: String,
}

impl Scope {
    /// The one that `linux.cgroupsPath` names; that of the container's id where it is absent.
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
        // To the drivers of others too, which make no scope then; theirs is for who puts scopes below it.
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
            "{}/{}/{BELOW}",
            slice_path(&self.slice)?,
            self.unit
        ))
    }

    /// Has systemd make it with this process in it, and waits until that is done.
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
            // One that failed is kept for people to look at.
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
            // It ends with its container, in whatever order systemd shuts down the rest.
            ("DefaultDependencies", Value::Flag(false)),
            // However its last process ends, nothing is left of it.
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
            .nothing();
        self.do_job(bus, &call)
    }

    /// Tells it of all limits as they are by now.
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

    /// Ends it, with all that is in it; one that has ended already, or with its systemd, is fine.
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

/// Whether there is a systemd to ask; why not, otherwise.
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

/// No name of a unit leads elsewhere in the hierarchy.
fn is_plain(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.\\-".contains(&byte);
    name.len() <= NAME_LIMIT_BYTES && !name.starts_with('.') && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_slice_prefix_and_container() {
        for (path, expected) in [
            (
                Some("machine.slice:libpod:c1"),
                "/machine.slice/libpod-c1.scope/container",
            ),
            (
                Some("a-b-c.slice:x:c1"),
                "/a.slice/a-b.slice/a-b-c.slice/x-c1.scope/container",
            ),
            (Some("-.slice::c1"), "/c1.scope/container"),
            (
                Some(":docker:c1"),
                "/system.slice/docker-c1.scope/container",
            ),
            (None, "/system.slice/tucano_oci-c1.scope/container"),
        ] {
            let scope = Scope::specified(path, "c1").unwrap();
            assert_eq!(scope.cgroup_path().unwrap(), expected);
        }
    }

    #[test]
    fn what_names_no_scope_is_refused() {
        for bad in [
            "/a/b",
            "a.slice:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a--b.slice:p:c",
            "-a.slice:p:c",
            "../x.slice:p:c",
            "a.slice:../p:c",
            "a.slice:p:",
            "a.slice:p:c/../../d",
            "a.slice:p:c.slice",
        ] {
            let error = Scope::specified(Some(bad), "c1").unwrap_err();
            assert!(error.to_string().contains('"'), "{bad}: {error}");
        }
        assert!(Scope::specified(None, "a+b").is_err());
        let slice = Scope::specified(Some("a.slice:p:c.slice"), "c1").unwrap_err();
        assert!(matches!(slice, Error::Slice(_)), "{slice}");
    }
}
