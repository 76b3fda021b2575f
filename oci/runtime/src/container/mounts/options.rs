//! A mount's options, sorted into what the mount, its propagation, and its file system are told.

use oci_spec::runtime::Mount;

/// Attributes of a mount: the option that sets one, the one that clears it, the kernel's flag. Each with an `r` before it is
/// about the mounts below too.
const FLAGS: [(&str, &str, u64); 6] = [
    ("ro", "rw", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", "dev", libc::MOUNT_ATTR_NODEV),
    ("noexec", "exec", libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// When times of access are written: one of three ways, of which `relatime` is the kernel's default.
const ACCESS_TIMES: [(&str, u64); 6] = [
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME),
    ("atime", libc::MOUNT_ATTR_RELATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME),
];

/// Where mounts that are made below it later are seen; each with an `r` before it is about the mounts below too.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// What needs nothing done: the default, and how talkative the kernel is.
const NOTHING: [&str; 3] = ["defaults", "silent", "loud"];

/// A mount's options.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Of the mount itself.
    pub(crate) own: Change,
    /// Of the mount and those below.
    pub(crate) all: Change,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) bind: bool,
    /// Whether the mounts below the source come along.
    pub(crate) recursive: bool,
    /// Whether ids are mapped, and if so, in the mounts below too.
    pub(crate) id_map: Option<bool>,
    /// Whether a new file system begins with what its place holds.
    pub(crate) copies_up: bool,
    /// For the file system. A bind mount makes none: mount(2) has it ignore them, and so they mean nothing there.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Attributes to set and to clear: never the same, but for the way of access times, all bits of which are cleared first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
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
    /// Of two that contradict each other, the later one counts.
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

    /// Takes out what a new mount is told when it is made: nothing, if its content is still to come.
    pub(crate) fn take_at_once(&mut self) -> u64 {
        if self.copies_up {
            return 0;
        }
        std::mem::take(&mut self.own).set
    }

    /// Whether its source has to be taken before this namespace's mounts become private.
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
            "tmpcopyup" => self.copies_up = true,
            _ if NOTHING.contains(&option) => {}
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

impl Change {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the option is about an attribute.
    fn take(&mut self, option: &str) -> bool {
        if let Some((_, way)) = ACCESS_TIMES.iter().find(|(name, _)| *name == option) {
            self.clear |= libc::MOUNT_ATTR__ATIME;
            self.set = self.set & !libc::MOUNT_ATTR__ATIME | way;
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
    /// What an option or `linux.rootfsPropagation` means.
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

/// Every option that is not the file system's.
pub(crate) fn names() -> Vec<String> {
    let attributes = FLAGS.iter().flat_map(|(set, clear, _)| [*set, *clear]);
    let twofold: Vec<&str> = attributes
        .chain(ACCESS_TIMES.iter().map(|(name, _)| *name))
        .chain(PROPAGATION.iter().map(|(name, _)| *name))
        .chain(["bind", "idmap"])
        .collect();
    let below = twofold.iter().map(|name| format!("r{name}"));
    let plain = twofold.iter().chain(&NOTHING).chain(&["tmpcopyup"]);
    let mut names: Vec<_> = plain.map(|name| (*name).to_owned()).chain(below).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(kind: &str, options: &[&str]) -> Options {
        let mount = serde_json::json!({ "destination": "/x", "type": kind, "options": options });
        Options::parse(&serde_json::from_value(mount).unwrap())
    }

    #[test]
    fn options_are_sorted_into_attributes_and_data() {
        let options = parsed(
            "tmpfs",
            &["nosuid", "ro", "rprivate", "mode=1777", "newinstance"],
        );
        let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY;
        assert_eq!(options.own, Change { set, clear: 0 });
        let expected = [
            ("mode".to_owned(), Some("1777".to_owned())),
            ("newinstance".to_owned(), None),
        ];
        assert_eq!(options.data, expected);
        let private = Propagation {
            kind: libc::MS_PRIVATE,
            recursive: true,
        };
        assert_eq!(options.propagation, Some(private));
        assert!(!options.bind);
    }

    #[test]
    fn the_later_of_two_options_counts() {
        let options = parsed("none", &["bind", "ro", "nodev", "rw", "suid"]);
        let set = libc::MOUNT_ATTR_NODEV;
        let clear = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        assert_eq!(options.own, Change { set, clear });
    }

    #[test]
    fn there_is_one_way_of_access_times() {
        let way = |options: &[&str]| parsed("none", options).own;
        let clear = libc::MOUNT_ATTR__ATIME;
        let strict = libc::MOUNT_ATTR_STRICTATIME;
        assert_eq!(
            way(&["noatime", "strictatime"]),
            Change { set: strict, clear }
        );
        assert_eq!(way(&["strictatime", "relatime"]), Change { set: 0, clear });
        assert_eq!(way(&["noatime", "atime"]), Change { set: 0, clear });
    }

    #[test]
    fn those_with_an_r_are_about_the_mounts_below_too() {
        let options = parsed("bind", &["rro", "rsuid", "nodev", "ridmap", "rshared"]);
        assert_eq!(options.all.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(options.all.clear, libc::MOUNT_ATTR_NOSUID);
        assert_eq!(options.own.set, libc::MOUNT_ATTR_NODEV);
        assert_eq!(options.id_map, Some(true));
        assert!(options.needs_peers() && options.data.is_empty());
        // `relatime` and `rw` begin with an r of their own.
        let plain = parsed("bind", &["relatime", "rw"]);
        assert!(plain.all.is_nothing() && plain.data.is_empty());
    }

    #[test]
    fn no_option_that_is_told_of_goes_to_the_file_system() {
        for name in names() {
            assert_eq!(parsed("bind", &[&name]).data, [], "{name}");
        }
    }
}
