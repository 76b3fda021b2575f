//! Sorts mount options into mount attributes, propagation, and options of the file system.

use oci_spec::runtime::Mount;

/// Mount attributes: the option that sets one, the option that clears it, and the flag. The prefix `r` applies it
/// recursively.
const FLAGS: [(&str, &str, u64); 6] = [
    ("ro", "rw", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", "dev", libc::MOUNT_ATTR_NODEV),
    ("noexec", "exec", libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Access time modes, of which one applies; `relatime` is the kernel's default.
const ACCESS_TIMES: [(&str, u64); 6] = [
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME),
    ("atime", libc::MOUNT_ATTR_RELATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME),
];

/// Propagation types. The prefix `r` applies one recursively.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Option of a bind mount whose source is not to be reached by a symbolic link. Not an option of the OCI's: for callers that have
/// resolved the path, and mount directories that others write to.
pub(crate) const DIRECT_SOURCE: &str = "x-tucano.direct-source";

/// Options without an effect: the default, and the kernel's verbosity.
const NO_EFFECT: [&str; 3] = ["defaults", "silent", "loud"];

/// Parsed options of a mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Attributes of the mount itself.
    pub(crate) own: AttributeChange,
    /// Recursive attributes.
    pub(crate) all: AttributeChange,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) bind: bool,
    /// Whether the source is cloned recursively.
    pub(crate) recursive: bool,
    /// Whether ids are mapped, and whether recursively.
    pub(crate) id_map: Option<bool>,
    /// Whether the source's path must have no symbolic link: [`DIRECT_SOURCE`].
    pub(crate) direct_source: bool,
    /// Whether a new tmpfs starts with a copy of the directory that it covers.
    pub(crate) copy_up: bool,
    /// Options of the file system. As with mount(2), they have no effect on a bind mount.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Attributes to set and to clear. They are disjoint, except for access time modes, whose bits are cleared first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

/// A kind of propagation: `MS_SHARED` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) kind: u64,
    pub(crate) recursive: bool,
}

impl Options {
    /// Parses the options of a mount. The later of two contradicting options wins.
    pub(crate) fn parse(mount: &Mount) -> Self {
        let mut options = Self {
            bind: mount.typ().as_deref() == Some("bind"),
            ..Self::default()
        };
        let mapped = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        options.id_map = mapped.then_some(false);
        for option in mount.options().iter().flatten() {
            options.take(option);
        }
        options
    }

    /// Takes the attributes that a new mount is created with; none if content is still to be copied into it.
    pub(crate) fn take_creation_attributes(&mut self) -> u64 {
        if self.copy_up {
            return 0;
        }
        std::mem::take(&mut self.own).set
    }

    /// Whether the source must be cloned before this namespace's mounts become private.
    pub(crate) fn needs_peers(&self) -> bool {
        self.bind
            && self
                .propagation
                .is_some_and(|wanted| matches!(wanted.kind, libc::MS_SHARED | libc::MS_SLAVE))
    }

    fn take(&mut self, option: &str) {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => self.copy_up = true,
            DIRECT_SOURCE => self.direct_source = true,
            _ if NO_EFFECT.contains(&option) => {}
            _ => {
                let known = self.own.take(option)
                    || option
                        .strip_prefix('r')
                        .is_some_and(|below| self.all.take(below));
                if let Some(propagation) = Propagation::of(option) {
                    self.propagation = Some(propagation);
                } else if !known {
                    self.data.push(match option.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (option.to_owned(), None),
                    });
                }
            }
        }
    }
}

impl AttributeChange {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes `ro` out; returns whether it was there.
    pub(crate) fn take_read_only(&mut self) -> bool {
        let is_read_only = self.set & libc::MOUNT_ATTR_RDONLY != 0;
        self.set &= !libc::MOUNT_ATTR_RDONLY;
        is_read_only
    }

    /// Parses an attribute option. Returns false for other options.
    fn take(&mut self, option: &str) -> bool {
        if let Some((_, mode)) = ACCESS_TIMES.iter().find(|(name, _)| *name == option) {
            self.clear |= libc::MOUNT_ATTR__ATIME;
            self.set = self.set & !libc::MOUNT_ATTR__ATIME | mode;
            return true;
        }
        for (sets, clears, flag) in FLAGS {
            if option == sets {
                self.set |= flag;
                self.clear &= !flag;
            } else if option == clears {
                self.clear |= flag;
                self.set &= !flag;
            } else {
                continue;
            }
            return true;
        }
        false
    }
}

impl Propagation {
    /// Parses an option or `linux.rootfsPropagation`.
    pub(crate) fn of(option: &str) -> Option<Self> {
        PROPAGATION.iter().find_map(|(name, kind)| {
            let recursive = option.strip_prefix('r') == Some(name);
            (recursive || option == *name).then_some(Self {
                kind: *kind,
                recursive,
            })
        })
    }
}

/// Names of every option that is not passed to a file system.
pub(crate) fn names() -> Vec<String> {
    let attributes = FLAGS.iter().flat_map(|(set, clear, _)| [*set, *clear]);
    let recursive_too: Vec<&str> = attributes
        .chain(ACCESS_TIMES.iter().map(|(name, _)| *name))
        .chain(PROPAGATION.iter().map(|(name, _)| *name))
        .chain(["bind", "idmap"])
        .collect();
    let below = recursive_too.iter().map(|name| format!("r{name}"));
    let plain = recursive_too.iter().chain(&NO_EFFECT).chain(&["tmpcopyup"]);
    let mut names: Vec<_> = plain.map(|name| (*name).to_owned()).chain(below).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
