//! What a service may ask of its sandbox, by name, beyond what every service gets.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type},
    },
};

use crate::{service::ServiceConfig, settings::closest, units::Bytes};

/// Processes and threads of a container that does not ask for more.
pub const DEFAULT_PIDS: u32 = 512;

/// `/dev/shm` of a container that does not ask for more.
pub const DEFAULT_SHM: Bytes = Bytes::mib(64);

/// `/tmp` of a container whose root is read-only.
pub const DEFAULT_TMP: Bytes = Bytes::mib(64);

/// What `caps = "web"` stands for: what servers need that begin as root and then become somebody else.
const WEB: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// What services may be given: capabilities over what a user namespace of their own holds (capabilities(7),
/// user_namespaces(7)), and over nothing else.
const GIVEN: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Those that no service is given: they reach the node, or mean nothing in a user namespace.
const WITHHELD: [&str; 30] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Capabilities by their names without `CAP_`. Written as `"web"` or as a list of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<&'static str>);

impl Capabilities {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().copied()
    }

    fn web() -> Self {
        Self(WEB.into())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::web() {
            return f.write_str("web");
        }
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::web() {
            return serializer.serialize_str("web");
        }
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Capabilities;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"web\" or a list of capabilities such as [\"CHOWN\", \"SETUID\"]")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Capabilities, E> {
                match value {
                    "web" => Ok(Capabilities::web()),
                    other => Err(E::custom(format!(
                        "{other:?} is no set of capabilities: write \"web\", or a list such as [\"CHOWN\", \"SETUID\"]"
                    ))),
                }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Capabilities, A::Error> {
                let mut all = BTreeSet::new();
                while let Some(Capability(name)) = list.next_element()? {
                    all.insert(name);
                }
                Ok(Capabilities(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl PartialSchema for Capabilities {
    fn schema() -> RefOr<Schema> {
        let text = |values: &[&'static str]| {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(values.to_vec()))
        };
        OneOfBuilder::new()
            .item(text(&["web"]))
            .item(ArrayBuilder::new().items(text(&GIVEN)))
            .into()
    }
}

impl ToSchema for Capabilities {}

/// One that a service may be given.
struct Capability(&'static str);

impl FromStr for Capability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if let Some(known) = GIVEN.iter().find(|known| **known == name) {
            return Ok(Self(known));
        }
        let given = GIVEN.join(", ");
        if WITHHELD.contains(&name) {
            return Err(format!(
                "{text:?} is given to no service: it reaches beyond a container, or means nothing inside; given are {given}"
            ));
        }
        let similar = closest(
            &name.to_lowercase(),
            &GIVEN.map(str::to_lowercase).each_ref().map(String::as_str),
        )
        .map(str::to_ascii_uppercase);
        Err(match similar {
            Some(similar) => format!("{text:?} is no capability: did you mean {similar:?}?"),
            None => format!("{text:?} is no capability; given are {given}"),
        })
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl ServiceConfig {
    /// In what its processes are less restricted than others, each as `key=value`.
    pub fn relaxed(&self) -> Vec<String> {
        let caps = (!self.caps.is_empty()).then(|| format!("caps={}", self.caps));
        let pids = (self.pids > DEFAULT_PIDS).then(|| format!("pids={}", self.pids));
        let larger = |size: &Bytes| *size > DEFAULT_SHM;
        let shm = self.shm_size.filter(larger);
        let shm = shm.map(|size| format!("shm_size={}", size.to_string().replace(' ', "")));
        [caps, pids, shm].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn read(more: &str) -> Result<ServiceConfig, String> {
        let text = format!("name = \"hello\"\nconcurrency = 6\nport = 8080\n{more}");
        parse("hello.toml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_relaxed_that_was_not_asked_for() {
        let config = read("").unwrap();
        assert!(config.caps.is_empty() && !config.read_only);
        assert!(config.relaxed().is_empty());
        let stricter = "read_only = true\ntmp_size = \"1MiB\"\nshm_size = \"1MiB\"\npids = 5";
        assert!(read(stricter).unwrap().relaxed().is_empty());
    }

    #[test]
    fn what_is_asked_for_is_told_by_name() {
        let config = read("caps = \"web\"\npids = 600\nshm_size = \"128MiB\"").unwrap();
        let relaxed = config.relaxed();
        assert_eq!(relaxed, ["caps=web", "pids=600", "shm_size=128.0MiB"]);
        let config = read("caps = [\"cap_kill\", \"CHOWN\"]").unwrap();
        assert_eq!(config.relaxed(), ["caps=CHOWN,KILL"]);
    }

    #[test]
    fn capabilities_keep_their_value_through_json() {
        for (text, json) in [
            (
                "[\"KILL\", \"CAP_CHOWN\", \"KILL\"]",
                "[\"CHOWN\",\"KILL\"]",
            ),
            ("[]", "[]"),
            (
                "[\"NET_BIND_SERVICE\", \"CHOWN\", \"SETUID\", \"SETGID\", \"FOWNER\", \"DAC_OVERRIDE\"]",
                "\"web\"",
            ),
        ] {
            let caps = read(&format!("caps = {text}")).unwrap().caps;
            assert_eq!(serde_json::to_string(&caps).unwrap(), json);
            assert_eq!(serde_json::from_str::<Capabilities>(json).unwrap(), caps);
        }
    }

    #[test]
    fn what_cannot_be_given_is_refused_where_it_stands() {
        for (more, part) in [
            ("caps = \"wbe\"", "hello.toml:4:8: caps: \"wbe\" is no set"),
            ("caps = [\"CHWON\"]", "did you mean \"CHOWN\"?"),
            (
                "caps = [\"SYS_ADMIN\"]",
                "\"SYS_ADMIN\" is given to no service",
            ),
            ("caps = [\"net_raw\"]", "\"net_raw\" is given to no service"),
            ("caps = [\"XYZZY\"]", "given are CHOWN, "),
            ("caps = 7", "\"web\" or a list"),
        ] {
            let message = read(more).unwrap_err();
            assert!(message.starts_with("hello.toml:4:"), "{message}");
            assert!(message.contains(part), "{more}: {message}");
        }
    }

    #[test]
    fn every_capability_of_the_kernel_is_either_given_or_withheld() {
        assert_eq!(
            GIVEN.len() + WITHHELD.len(),
            41,
            "capability.h of Linux 6.18"
        );
        assert!(WEB.iter().all(|name| GIVEN.contains(name)));
    }
}
