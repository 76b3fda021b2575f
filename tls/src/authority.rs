//! The cluster's certificate authority, created once. Its key can impersonate every program of the cluster.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SigningKey, date_time_ymd,
};
use rustls_pki_types::DnsName;
use time::OffsetDateTime;

use crate::{
    Error, Identity, Leaf, Validity, files,
    leaf::{self, Parsed},
};

const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca.pem";

/// The certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(redacted)")
    }
}

/// An address or host name that a certificate is valid for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// An address.
    Ip(IpAddr),
    /// A host name.
    Host(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Host(host) => f.write_str(host),
        }
    }
}

impl Name {
    /// Parses an address, else a host name; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let ip = text.trim_matches(['[', ']']).parse::<IpAddr>();
        if let Ok(ip) = ip {
            return Some(Self::Ip(ip.to_canonical()));
        }
        let host = DnsName::try_from(text).ok()?;
        Some(Self::Host(host.as_ref().to_ascii_lowercase()))
    }

    fn to_san(&self) -> Result<SanType, Error> {
        Ok(match self {
            Self::Ip(ip) => SanType::IpAddress(*ip),
            Self::Host(host) => SanType::DnsName(host.as_str().try_into()?),
        })
    }
}

impl Authority {
    /// Path of the authority's certificate in this directory.
    pub fn certificate_in(directory: &Path) -> PathBuf {
        directory.join(CERTIFICATE)
    }

    /// Opens the authority in this directory, or creates it: first the key, then the certificate. A crash in between
    /// leaves a key that nothing relies on yet.
    ///
    /// # Errors
    /// Files that are not usable. They are never replaced: every program that trusts the authority would have to be
    /// reconfigured.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        files::directory(directory)?;
        let (key_path, certificate_path) = (directory.join(KEY), Self::certificate_in(directory));
        let key = files::read(&key_path)?;
        let certificate = files::read(&certificate_path)?;
        let unusable = |path: &Path, problem: &str| Error::Content {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let key = match (key, &certificate) {
            (Some(key), _) => KeyPair::from_pem(&key).map_err(|_| {
                unusable(
                    &key_path,
                    "not a private key: restore the authority's key from a copy",
                )
            })?,
            (None, None) => leaf::make_key(&key_path)?,
            (None, Some(_)) => {
                let problem = "the authority's key is missing: restore it; or remove ca.pem as well to create a new \
                               authority, whose ca.pem all workers then need";
                return Err(unusable(&key_path, problem));
            }
        };
        let pem = match certificate {
            Some(pem) => pem,
            None => {
                let pem = own_params(&key).self_signed(&key)?.pem();
                files::write(&certificate_path, &pem, files::PUBLIC)?;
                pem
            }
        };
        let parsed = Parsed::of(&pem).map_err(|problem| unusable(&certificate_path, &problem))?;
        if parsed.public_key != key.der_bytes() {
            let problem = "this certificate does not match the key beside it: restore the right one, or remove it to have it recreated";
            return Err(unusable(&certificate_path, problem));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|error| unusable(&certificate_path, &error.to_string()))?;
        Ok(Self { issuer, pem })
    }

    /// The authority's certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Generates a key and issues a certificate with this identity for these names.
    ///
    /// # Errors
    /// A name that a certificate cannot hold.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[Name],
        validity: Validity,
    ) -> Result<Leaf, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf_params(identity, names, validity)?.signed_by(&key, &self.issuer)?;
        Leaf::new(&certificate.pem(), &key.serialize_pem())
    }

    /// Issues a certificate with this identity, in PEM, for the key of a signing request and for these names. Everything
    /// else in the request is ignored.
    ///
    /// # Errors
    /// The request is malformed, or not signed by its own key.
    pub fn sign(
        &self,
        request: &str,
        identity: &Identity,
        names: &[Name],
        validity: Validity,
    ) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("its key is not ECDSA P-256".to_owned()));
        }
        let params = leaf_params(identity, names, validity)?;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// The name is derived from the key: a recreated certificate is equivalent to the lost one.
fn own_params(key: &impl SigningKey) -> CertificateParams {
    let mut params = CertificateParams::default();
    let digest: String = params
        .key_identifier(key)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("Tucano cluster {digest}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // No well-defined expiration date (RFC 5280, 4.1.2.5).
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + time::Duration::seconds(86_399);
    params
}

fn leaf_params(
    identity: &Identity,
    names: &[Name],
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let common_name = identity.to_string();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.subject_alt_names = names.iter().map(Name::to_san).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(validity.begins);
    params.not_after = date(validity.ends);
    Ok(params)
}

/// Certificates have a resolution of one second.
fn date(time: SystemTime) -> OffsetDateTime {
    let date = OffsetDateTime::from(time);
    date.replace_nanosecond(0).unwrap_or(date)
}

#[cfg(test)]
mod tests;
