//! The capabilities that a service may ask for.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type},
    },
};

use crate::settings::closest;

/// What `caps = "web"` stands for: the needs of servers that start as root and then change to another user.
const WEB: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// Those that a service may be granted: each acts only on what the service's own user namespace owns (capabilities(7),
/// user_namespaces(7)).
const GRANTED: [&str; 11] = [
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

/// Those that no service is granted: they act on the whole node, or have no effect in a user namespace.
const REFUSED: [&str; 30] = [
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
    /// Whether there are none.
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
                        "{other:?} is not a set of capabilities: write \"web\", or a list such as [\"CHOWN\", \"SETUID\"]"
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
            .item(ArrayBuilder::new().items(text(&GRANTED)))
            .into()
    }
}

impl ToSchema for Capabilities {}

/// One that a service may be granted.
struct Capability(&'static str);

impl FromStr for Capability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if let Some(known) = GRANTED.iter().find(|known| **known == name) {
            return Ok(Self(known));
        }
        let granted = GRANTED.join(", ");
        if REFUSED.contains(&name) {
            return Err(format!(
                "{text:?} is granted to no service: it acts on the whole node, or has no effect in a container; the choice is {granted}"
            ));
        }
        let similar = closest(
            &name.to_lowercase(),
            &GRANTED
                .map(str::to_lowercase)
                .each_ref()
                .map(String::as_str),
        )
        .map(str::to_ascii_uppercase);
        Err(match similar {
            Some(similar) => format!("{text:?} is not a capability: did you mean {similar:?}?"),
            None => {
                format!("{text:?} is not a capability that can be granted; the choice is {granted}")
            }
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

#[cfg(test)]
mod tests;
