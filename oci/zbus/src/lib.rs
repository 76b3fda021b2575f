//! `zbus` without D-Bus, for `cgroups-rs`: that crate has a driver for systemd's cgroups, which `tucano_oci` does not use (it has
//! [one of its own](../../docs/decisions/0008-scopes-and-a-cgroup-below.md)), and which cannot be switched off. The real crate brings 38 others, among
//! them an asynchronous runtime of its own, and makes cargo build serde, syn and libc twice
//! ([0079](../../docs/decisions/0079-zbus-without-d-bus.md)).
//!
//! Only what `cgroups-rs` names is here. Every call fails with [`Error::Unsupported`].

pub use zbus_proxy::proxy;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Every call: there is no D-Bus here.
    Unsupported,
    /// An answer of D-Bus, by its name. It never comes; `cgroups-rs` matches on it.
    MethodError(String, Option<String>, ()),
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("this program is built without D-Bus")
    }
}

impl std::error::Error for Error {}

/// Connections, which cannot be made, and the client of systemd's interface `org.freedesktop.systemd1.Manager`.
pub mod blocking {
    use std::marker::PhantomData;

    use crate::{Error, Result, zvariant::Value};

    /// A connection to a bus.
    #[derive(Debug)]
    pub struct Connection(());

    impl Connection {
        /// The system's bus.
        ///
        /// # Errors
        /// Always.
        pub fn system() -> Result<Self> {
            Err(Error::Unsupported)
        }
    }

    /// A client of systemd's manager.
    #[derive(Debug)]
    pub struct ManagerProxyBlocking<'a>(PhantomData<&'a ()>);

    type Properties<'a> = [&'a (&'a str, &'a Value<'a>)];
    type Auxiliary<'a> = [&'a (&'a str, &'a Properties<'a>)];

    /// Methods of systemd's manager: none can be called.
    #[allow(missing_docs, reason = "systemd documents them")]
    impl ManagerProxyBlocking<'_> {
        pub fn new(_connection: &Connection) -> Result<Self> {
            Err(Error::Unsupported)
        }

        pub fn start_transient_unit(
            &self,
            _name: &str,
            _mode: &str,
            _properties: &Properties<'_>,
            _auxiliary: &Auxiliary<'_>,
        ) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn stop_unit(&self, _name: &str, _mode: &str) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn reset_failed_unit(&self, _name: &str) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn set_unit_properties(
            &self,
            _name: &str,
            _runtime: bool,
            _properties: &Properties<'_>,
        ) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn freeze_unit(&self, _name: &str) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn thaw_unit(&self, _name: &str) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn get_unit(&self, _name: &str) -> Result<()> {
            Err(Error::Unsupported)
        }

        pub fn attach_processes_to_unit(
            &self,
            _unit: &str,
            _subcgroup: &str,
            _pids: &[u32],
        ) -> Result<()> {
            Err(Error::Unsupported)
        }
    }
}

/// Values of D-Bus.
pub mod zvariant {
    use std::borrow::Cow;

    use crate::{Error, Result};

    /// A value of one of the types that `cgroups-rs` sends.
    #[derive(Debug, Clone, PartialEq)]
    #[allow(missing_docs, reason = "D-Bus documents its types")]
    pub enum Value<'a> {
        Bool(bool),
        U32(u32),
        U64(u64),
        Str(Cow<'a, str>),
        Array(Array),
    }

    impl Value<'_> {
        /// A copy.
        ///
        /// # Errors
        /// Never.
        pub fn try_clone(&self) -> Result<Value<'static>> {
            Ok(match self {
                Self::Bool(value) => Value::Bool(*value),
                Self::U32(value) => Value::U32(*value),
                Self::U64(value) => Value::U64(*value),
                Self::Str(value) => Value::Str(Cow::Owned(value.clone().into_owned())),
                Self::Array(value) => Value::Array(value.clone()),
            })
        }
    }

    impl From<u64> for Value<'_> {
        fn from(value: u64) -> Self {
            Self::U64(value)
        }
    }

    impl From<Vec<u8>> for Value<'_> {
        fn from(values: Vec<u8>) -> Self {
            Self::Array(Array(values.into_iter().map(u32::from).collect()))
        }
    }

    /// Numbers.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Array(Vec<u32>);

    impl Array {
        /// Adds one.
        ///
        /// # Errors
        /// If it is no number of 32 bits.
        pub fn append(&mut self, value: Value<'_>) -> Result<()> {
            match value {
                Value::U32(value) => self.0.push(value),
                Value::U64(value) => self
                    .0
                    .push(u32::try_from(value).map_err(|_| Error::Unsupported)?),
                _ => return Err(Error::Unsupported),
            }
            Ok(())
        }
    }

    impl From<Vec<u32>> for Array {
        fn from(values: Vec<u32>) -> Self {
            Self(values)
        }
    }
}
