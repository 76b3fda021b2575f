//! Names and numbers that identify things. Each is validated where it enters and never again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A name that is not acceptable, with the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::try_from(value.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                if $valid(&value) {
                    Ok(Self(value))
                } else {
                    Err(InvalidId { kind: $kind, value: value.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

string_id!(
    /// Name of a service: a DNS label (RFC 1123) that starts with a letter, at most 50 bytes, so that
    /// a process's name still fits into one label and is a host name by itself.
    ServiceName,
    "service name",
    "use 1 to 50 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    is_service_name
);
string_id!(
    /// Name of an application, which services belong to: formed as a service's name.
    AppName,
    "application name",
    "use 1 to 50 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    is_service_name
);
string_id!(
    /// A kind of devices, as the Container Device Interface names it: `vendor.com/class`.
    DeviceKind,
    "device kind",
    "write a vendor's domain and a class, such as \"nvidia.com/gpu\"",
    is_device_kind
);
string_id!(
    /// Name of a device among those of its kind.
    DeviceName,
    "device name",
    "use 1 to 128 letters, digits, '-', '_', '.' and ':', the first and the last a letter or a digit",
    is_device_name
);
string_id!(
    /// Name of a port within its service: as IANA's service names, in lower case.
    PortName,
    "port name",
    "use 1 to 15 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    is_port_name
);

impl PortName {
    /// The name of the port for requests, `http`.
    pub fn http() -> Self {
        Self("http".to_owned())
    }
}

string_id!(
    /// Name of a volume within its service: formed as a service's name.
    VolumeName,
    "volume name",
    "use 1 to 50 lower-case letters, digits and '-', starting with a letter and not ending with '-'",
    is_service_name
);
string_id!(
    /// Identity of a volume: `<service>/<volume>/<slot>`. It outlives its service.
    VolumeId,
    "volume",
    "it is a service's name, a volume's name and a slot's number, such as db/data/1",
    is_volume_id
);
string_id!(
    /// Name of a secret.
    SecretName,
    "secret name",
    "use 1 to 100 letters, digits, '.', '_' and '-', starting with a letter or digit",
    is_secret_name
);
string_id!(
    /// Name of a label of a node, such as `zone`.
    LabelName,
    "label",
    "use 1 to 63 letters, digits, '.', '_', '/' and '-', starting and ending with a letter or digit",
    is_label
);
string_id!(
    /// Value of a label of a node, such as `rack-2`.
    LabelValue,
    "value of a label",
    "use 1 to 63 letters, digits, '.', '_', '/' and '-', starting and ending with a letter or digit",
    is_label
);
string_id!(
    /// Name of a node of the topology: its configured `name`, else its ip.
    NodeName,
    "node name",
    "use 1 to 63 letters, digits, '.', ':' and '-', starting and ending with a letter or digit",
    is_node_name
);
string_id!(
    /// Identity of one process, unique for the life of the cluster: `<service>-<number>`.
    ProcessId,
    "process id",
    "it is a service name, '-' and a number",
    is_process_id
);
string_id!(
    /// Content digest (OCI image-spec, descriptor.md): `sha256:` and 64 lower-case hexadecimal digits.
    Digest,
    "digest",
    "write sha256: followed by 64 lower-case hexadecimal digits",
    is_digest
);

string_id!(
    /// Identity of a cluster: random, created with the controller's database.
    ClusterId,
    "cluster id",
    "use 8 to 64 lower-case hexadecimal digits",
    is_cluster_id
);

string_id!(
    /// Name of a balancer on another machine than the controller's, as its certificate has it.
    BalancerName,
    "balancer name",
    "use 1 to 63 letters, digits, '.' and '-', starting and ending with a letter or digit",
    is_balancer_name
);
string_id!(
    /// Identity of one balancer, from its start to its end.
    BalancerId,
    "balancer id",
    "use 1 to 100 letters, digits, '.', '_' and '-'",
    is_balancer_id
);

impl BalancerId {
    /// The identity of a balancer that has this certificate, process id and start time.
    pub fn new(name: &str, pid: u32, started: u128) -> Result<Self, InvalidId> {
        Self::try_from(format!("{name}-{pid}-{started:x}"))
    }

    /// The name that it begins with; `None` where it is not made by [`BalancerId::new`].
    pub fn name(&self) -> Option<&str> {
        self.0.rsplitn(3, '-').nth(2)
    }
}

impl ProcessId {
    /// The `number`-th process of the cluster, which runs `service`.
    pub fn new(service: &ServiceName, number: u64) -> Self {
        Self(format!("{service}-{number}"))
    }

    /// The number at the end, unique in the cluster; later processes have larger ones.
    pub fn number(&self) -> u64 {
        self.0
            .rsplit_once('-')
            .and_then(|(_, n)| n.parse().ok())
            .unwrap_or(0)
    }

    /// The name of the service that it runs.
    pub fn service_name(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(service, _)| service)
    }
}

impl VolumeId {
    /// The volume `name` of a service's slot, which is counted from 1.
    pub fn new(service: &ServiceName, name: &VolumeName, slot: u32) -> Self {
        Self(format!("{service}/{name}/{slot}"))
    }

    /// The name of its service.
    pub fn service_name(&self) -> &str {
        self.0.split('/').next().unwrap_or("")
    }

    /// Its service.
    pub fn service(&self) -> ServiceName {
        ServiceName(self.service_name().to_owned())
    }

    /// Its name within the service.
    pub fn volume_name(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or("")
    }

    /// The slot that it belongs to.
    pub fn slot(&self) -> u32 {
        let slot = self.0.rsplit('/').next();
        slot.and_then(|slot| slot.parse().ok()).unwrap_or(0)
    }
}

impl Digest {
    /// The digest of a SHA-256 sum given as hexadecimal text.
    pub fn sha256(hex: &str) -> Result<Self, InvalidId> {
        Self::try_from(format!("sha256:{hex}"))
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

fn is_balancer_name(name: &str) -> bool {
    is_node_name(name) && !name.contains(':')
}

fn is_balancer_id(id: &str) -> bool {
    (1..=100).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

fn is_service_name(name: &str) -> bool {
    (1..=50).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_device_kind(kind: &str) -> bool {
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let is_name = |name: &str, most| name.len() <= most && is_between_alphanumerics(name, b"-_.");
    // Some vendors have no dot in it.
    is_name(vendor, 253)
        && is_name(class, 63)
        && vendor.starts_with(|it: char| it.is_ascii_alphabetic())
}

fn is_device_name(name: &str) -> bool {
    name.len() <= 128 && is_between_alphanumerics(name, b"-_.:")
}

fn is_between_alphanumerics(name: &str, more: &[u8]) -> bool {
    let bytes = name.as_bytes();
    let ends = bytes.first().into_iter().chain(bytes.last());
    !name.is_empty()
        && ends.clone().all(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|it| it.is_ascii_alphanumeric() || more.contains(it))
}

fn is_port_name(name: &str) -> bool {
    name.len() <= 15 && is_service_name(name)
}

fn is_volume_id(id: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    matches!(parts[..], [service, volume, slot]
        if is_service_name(service) && is_service_name(volume) && is_slot(slot))
}

fn is_slot(slot: &str) -> bool {
    (1..=5).contains(&slot.len())
        && slot.bytes().all(|b| b.is_ascii_digit())
        && !slot.starts_with('0')
}

fn is_secret_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_label(value: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
    bytes.len() <= 63 && is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(inner)
}

fn is_node_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == ':')
        && name.ends_with(alphanumeric)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".:-".contains(&b))
}

fn is_process_id(id: &str) -> bool {
    id.rsplit_once('-').is_some_and(|(service, number)| {
        is_service_name(service)
            && (1..=12).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn is_cluster_id(id: &str) -> bool {
    (8..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = u64)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Number of a service's revision: one immutable pair of static configuration and image digest; from 1.
    Revision
);
number_id!(
    /// Number of a node's desired set within an epoch; an agent refuses a lower one than it has seen.
    Generation
);
number_id!(
    /// Which controller's database has issued a desired set. A higher epoch takes precedence over any generation of a
    /// lower one. A new database and a restored one begin a new epoch.
    Epoch
);

impl Generation {
    /// Largest step from one generation to a later one that an agent or the controller takes for real.
    pub const MAX_STEP: u64 = 1 << 32;

    /// Whether no controller can have issued this generation after `earlier`.
    pub fn is_absurd_after(self, earlier: Self) -> bool {
        self.0 > earlier.0.saturating_add(Self::MAX_STEP)
    }
}

impl Epoch {
    /// Whether no controller can have begun this epoch after `earlier`. Epochs are seconds since 1970.
    pub fn is_absurd_after(self, earlier: Self) -> bool {
        self.0 > earlier.0.saturating_add(Generation::MAX_STEP)
    }
}

#[cfg(test)]
mod tests;
