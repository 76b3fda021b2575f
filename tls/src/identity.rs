//! The role and name in a certificate's subject: `controller`, `node:<name>` or `balancer:<name>`.

use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

/// The program that a certificate of the cluster's authority identifies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The controller.
    Controller,
    /// The agent of the node with this name.
    Node(String),
    /// The balancer with this name.
    Balancer(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Balancer(name) => write!(f, "balancer:{name}"),
        }
    }
}

impl Identity {
    /// Parses a common name; `None` for certificates without a role, as versions before mutual TLS issued them.
    pub fn parse(common_name: &str) -> Option<Self> {
        if common_name == "controller" {
            return Some(Self::Controller);
        }
        let (role, name) = common_name.split_once(':')?;
        match role {
            _ if name.is_empty() => None,
            "node" => Some(Self::Node(name.to_owned())),
            "balancer" => Some(Self::Balancer(name.to_owned())),
            _ => None,
        }
    }

    /// The identity of a certificate in DER.
    pub fn of_der(certificate: &[u8]) -> Option<Self> {
        Self::of(&CertificateDer::from(certificate))
    }

    /// The identity in a certificate, which the caller has verified. A subject with several common names has none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let only = names.next().filter(|_| names.next().is_none())?;
        Self::parse(only.as_str().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_parsed_and_printed() {
        for text in ["controller", "node:w1", "balancer:10.0.0.1", "node:a:b"] {
            assert_eq!(Identity::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "Tucano",
            "Controller",
            "controller:",
            "node",
            "node:",
            "ctl:x",
            " node:w1",
        ] {
            assert_eq!(Identity::parse(text), None, "{text:?}");
        }
    }
}
