//! Device access rules (OCI runtime specification, "Allowed Device list"). The last rule that matches a device and an
//! access type decides; without a match, access is denied.

use std::{
    fs::File,
    io::{self, Write},
    iter,
    path::Path,
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::{Mode, OFlags, open};

use super::{Cgroup, Error, filter};
use crate::sys;

/// Devices that every container may use, as `(major, minor)`. None of them reaches the host: null, zero, full, random,
/// urandom, tty, ptmx, and all of devpts.
const DEFAULT: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// Making nodes of any kind, which can be opened only as other rules say. Bundles may, as with other runtimes.
const MAKE_NODES: [Rule; 2] = [
    Rule {
        allow: true,
        kind: Some(Kind::Character),
        access: Access::MAKE,
        ..DENY_ALL
    },
    Rule {
        allow: true,
        kind: Some(Kind::Block),
        access: Access::MAKE,
        ..DENY_ALL
    },
];

/// The specification's wildcard; leaving a number out means the same.
const ANY: i64 = -1;

const LIMIT_NAME: &str = "the device rules";

/// A rule. A field without a value matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

/// Denies everything.
const DENY_ALL: Rule = Rule {
    allow: false,
    kind: None,
    major: None,
    minor: None,
    access: Access::ALL,
};

/// Device type, with the values of `BPF_DEVCG_DEV_*` in `<linux/bpf.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// Access types, with the bits of `BPF_DEVCG_ACC_*` in `<linux/bpf.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(pub(super) u32);

impl Access {
    const NAMES: [(char, u32); 3] = [('m', 1), ('r', 2), ('w', 4)];
    pub(super) const ALL: Self = Self(7);
    const MAKE: Self = Self(1);

    fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("the access {text:?} is not made of r, w and m");
        if text.is_empty() {
            return Err(unknown());
        }
        let bit = |letter| Self::NAMES.iter().find(|(name, _)| *name == letter);
        text.chars()
            .try_fold(Self(0), |all, letter| match bit(letter) {
                Some((_, bit)) => Ok(Self(all.0 | bit)),
                None => Err(unknown()),
            })
    }

    fn letters(self) -> String {
        let granted = Self::NAMES.iter().filter(|(_, bit)| self.0 & bit != 0);
        granted.map(|(letter, _)| letter).collect()
    }
}

impl Rule {
    fn of(wanted: &LinuxDeviceCgroup) -> Result<Self, String> {
        let kind = match wanted.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(Kind::Block),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Character),
            LinuxDeviceType::P => return Err("type p is a pipe, not a device".into()),
        };
        Ok(Self {
            allow: wanted.allow(),
            kind,
            major: number(wanted.major())?,
            minor: number(wanted.minor())?,
            access: wanted
                .access()
                .as_deref()
                .map_or(Ok(Access::ALL), Access::parse)?,
        })
    }

    fn matches_everything(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == Access::ALL
    }
}

fn number(value: Option<i64>) -> Result<Option<u32>, String> {
    match value {
        None | Some(ANY) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| format!("{value} is not a device number")),
    }
}

/// Installs the rules, followed by those for the default devices.
pub(super) fn set(
    cgroup: &Cgroup,
    wanted: &[LinuxDeviceCgroup],
    make_nodes: bool,
) -> Result<(), Error> {
    let Some(directory) = cgroup.directory("devices") else {
        return Ok(());
    };
    let refused = |reason| refusal(directory, reason);
    let mut rules = complete(wanted).map_err(refused)?;
    if make_nodes {
        rules.extend(MAKE_NODES);
    }
    if cgroup.is_unified() {
        return attach(directory, &rules, !wanted.is_empty());
    }
    // A v1 cgroup starts with its parent's rules.
    let all = iter::once(&DENY_ALL).chain(&rules);
    write(directory, all).map_err(refused)
}

fn refusal(directory: &Path, reason: String) -> Error {
    Error::Limit {
        what: LIMIT_NAME,
        path: directory.to_owned(),
        reason,
    }
}

/// Checks whether the kernel supports device rules on v2.
pub(super) fn try_filter() -> io::Result<()> {
    sys::load_device_filter(&filter::program(&[])).map(drop)
}

fn complete(wanted: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, String> {
    let default = DEFAULT.map(|(major, minor)| Rule {
        allow: true,
        kind: Some(Kind::Character),
        major: Some(major),
        minor,
        access: Access::ALL,
    });
    let mut rules: Vec<_> = wanted.iter().map(Rule::of).collect::<Result<_, _>>()?;
    rules.extend(default);
    Ok(rules)
}

/// On v2 the rules are a BPF program that is attached to the cgroup and lives as long as it.
fn attach(directory: &Path, rules: &[Rule], is_asked_for: bool) -> Result<(), Error> {
    let refused = |source: io::Error| refusal(directory, source.to_string());
    let program = match sys::load_device_filter(&filter::program(rules)) {
        // Sandboxes have no CAP_MKNOD, so that they have only the default devices even without a filter.
        Err(error) if is_missing(&error) && !is_asked_for => return Ok(()),
        other => other.map_err(refused)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = open(directory, flags, Mode::empty()).map_err(|errno| refused(errno.into()))?;
    sys::attach_device_filter(&cgroup, &program).map_err(refused)
}

/// Errors of kernels without this program type, without BPF, or with a policy against it (bpf(2)).
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)
    )
}

/// Writes rules to the two v1 files, one per write as the kernel requires.
fn write<'a>(directory: &Path, rules: impl Iterator<Item = &'a Rule>) -> Result<(), String> {
    let open = |name: &str| {
        let file = File::options().write(true).open(directory.join(name));
        file.map_err(|error| format!("{name}: {error}"))
    };
    let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
    for rule in rules {
        let file = if rule.allow { &mut allow } else { &mut deny };
        for line in lines(rule) {
            file.write_all(line.as_bytes())
                .map_err(|error| format!("{line}: {error}"))?;
        }
    }
    Ok(())
}

/// v1's type `a` ignores the other fields, so a narrower rule is written once per device type.
fn lines(rule: &Rule) -> Vec<String> {
    let kinds: &[char] = match rule.kind {
        Some(Kind::Block) => &['b'],
        Some(Kind::Character) => &['c'],
        None if rule.matches_everything() => &['a'],
        None => &['b', 'c'],
    };
    let number = |part: Option<u32>| part.map_or("*".to_owned(), |number| number.to_string());
    let (major, minor) = (number(rule.major), number(rule.minor));
    let access = rule.access.letters();
    let line = |kind| format!("{kind} {major}:{minor} {access}");
    kinds.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
