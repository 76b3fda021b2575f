//! The cluster's own certificate authority: made once, kept for ever after. Whoever has its key can be anybody of the cluster.

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
    Error, Leaf, Validity, files,
    leaf::{self, Parsed},
};

const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca.pem";

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(redacted)")
    }
}

/// What a certificate is for.
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
    /// An address, or else a host name; nothing where it is neither.
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
    /// Where the certificate of the one in this directory is.
    pub fn certificate_in(directory: &Path) -> PathBuf {
        directory.join(CERTIFICATE)
    }

    /// Opens the one in this directory, or makes it: first its key, then its certificate. One that was killed in between
    /// has told nobody of the key yet.
    ///
    /// # Errors
    /// Files that cannot be used: then no other one takes its place, for all who trust it would have to be told.
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
                    "this is no key: put a copy of the authority's key back",
                )
            })?,
            (None, None) => leaf::make_key(&key_path)?,
            (None, Some(_)) => {
                let problem = "the authority's key is missing: put it back; or, for a new authority, whose ca.pem \
                               all workers then need, remove ca.pem as well";
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
            let problem = "this certificate is not of the key beside it: put the right one back, or remove it to have it made anew";
            return Err(unusable(&certificate_path, problem));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|error| unusable(&certificate_path, &error.to_string()))?;
        Ok(Self { issuer, pem })
    }

    /// Its certificate: what others copy.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A new key and a certificate for these names.
    ///
    /// # Errors
    /// Names that no certificate can have.
    pub fn issue(&self, names: &[Name], validity: Validity) -> Result<Leaf, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf_params(names, validity)?.signed_by(&key, &self.issuer)?;
        Leaf::new(&certificate.pem(), &key.serialize_pem())
    }

    /// A certificate, in PEM, of the key that a request comes with, for this address: all else that the request asks
    /// for does not count.
    ///
    /// # Errors
    /// A request that is none, or not signed by its own key.
    pub fn sign(&self, request: &str, ip: IpAddr, validity: Validity) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("its key is not ECDSA P-256".to_owned()));
        }
        let params = leaf_params(&[Name::Ip(ip)], validity)?;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// The name is the key's: a certificate that was lost, and is made again, is worth the same to all who have the old one.
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
    // Of no fixed end (RFC 5280, 4.1.2.5).
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + time::Duration::seconds(86_399);
    params
}

fn leaf_params(names: &[Name], validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Tucano");
    params.subject_alt_names = names.iter().map(Name::to_san).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(validity.begins);
    params.not_after = date(validity.ends);
    Ok(params)
}

/// To the second, as certificates have it.
fn date(time: SystemTime) -> OffsetDateTime {
    let date = OffsetDateTime::from(time);
    date.replace_nanosecond(0).unwrap_or(date)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::Trust;

    fn names() -> [Name; 2] {
        [
            Name::parse("10.0.0.1").unwrap(),
            Name::parse("ctl.example").unwrap(),
        ]
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let tls = directory.path().join("tls");
        let first = Authority::open(&tls).unwrap();
        let again = Authority::open(&tls).unwrap();
        assert_eq!(first.pem(), again.pem());
        let mode = |name: &str| fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode(CERTIFICATE)), (0o600, 0o644));
        // What one issues, the other's certificate vouches for.
        let now = SystemTime::now();
        let leaf = first.issue(&names(), Validity::from(now)).unwrap();
        let trust = Trust::from_pem(again.pem()).unwrap();
        for name in ["10.0.0.1", "ctl.example"] {
            trust.vouches_for(&leaf, name, now).unwrap();
        }
        assert!(trust.vouches_for(&leaf, "10.0.0.2", now).is_err());
        assert!(!format!("{first:?} {leaf:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_was_interrupted_is_made_whole_and_a_certificate_made_again_is_worth_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path()).unwrap();
        let now = SystemTime::now();
        let leaf = first.issue(&names(), Validity::from(now)).unwrap();
        fs::remove_file(directory.path().join(CERTIFICATE)).unwrap();
        fs::write(directory.path().join("ca.pem.new"), "half of a cert").unwrap();
        let again = Authority::open(directory.path()).unwrap();
        let trust = Trust::from_pem(again.pem()).unwrap();
        trust.vouches_for(&leaf, "10.0.0.1", now).unwrap();
    }

    #[test]
    fn an_authority_that_is_damaged_is_not_replaced() {
        for (remove, write, part) in [
            (Some(KEY), None, "the authority's key is missing"),
            (None, Some((KEY, "x")), "this is no key"),
            (None, Some((CERTIFICATE, "x")), "no certificate"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            Authority::open(directory.path()).unwrap();
            if let Some(name) = remove {
                fs::remove_file(directory.path().join(name)).unwrap();
            }
            if let Some((name, text)) = write {
                fs::write(directory.path().join(name), text).unwrap();
            }
            let error = Authority::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::open(one.path()).unwrap();
        Authority::open(other.path()).unwrap();
        fs::copy(one.path().join(CERTIFICATE), other.path().join(CERTIFICATE)).unwrap();
        let error = Authority::open(other.path()).unwrap_err().to_string();
        assert!(error.contains("not of the key beside it"), "{error}");
    }

    #[test]
    fn a_request_gets_the_address_that_is_decided_and_nothing_it_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let now = SystemTime::now();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["10.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let worker: IpAddr = "10.0.0.11".parse().unwrap();
        let pem = authority
            .sign(&request, worker, Validity::from(now))
            .unwrap();
        let leaf = Leaf::new(&pem, &key.serialize_pem()).unwrap();
        let trust = Trust::from_pem(authority.pem()).unwrap();
        trust.vouches_for(&leaf, "10.0.0.11", now).unwrap();
        assert!(trust.vouches_for(&leaf, "10.0.0.1", now).is_err());
        // Nor can it vouch for others.
        let own = Issuer::from_ca_cert_pem(&pem, key).unwrap();
        let forged_key = KeyPair::generate().unwrap();
        let forged = leaf_params(&names(), Validity::from(now)).unwrap();
        let forged = forged.signed_by(&forged_key, &own).unwrap().pem();
        let chain = format!("{forged}{pem}");
        let forged = Leaf::new(&chain, &forged_key.serialize_pem()).unwrap();
        assert!(trust.vouches_for(&forged, "10.0.0.1", now).is_err());
        for nonsense in ["", "x", authority.pem()] {
            let refused = authority.sign(nonsense, worker, Validity::from(now));
            assert!(matches!(refused, Err(Error::Request(_))), "{refused:?}");
        }
        let tampered = request.replacen('M', "N", 2);
        assert!(
            authority
                .sign(&tampered, worker, Validity::from(now))
                .is_err()
        );
    }

    #[test]
    fn what_is_over_or_of_another_authority_is_not_vouched_for() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open(one.path()).unwrap();
        let stranger = Authority::open(other.path()).unwrap();
        let now = SystemTime::now();
        let trust = Trust::from_pem(authority.pem()).unwrap();
        let day = Duration::from_secs(86_400);
        let over = Validity::from(now - day * 31);
        let leaf = authority.issue(&names(), over).unwrap();
        let error = trust.vouches_for(&leaf, "10.0.0.1", now).unwrap_err();
        assert!(error.to_string().contains("xpired"), "{error}");
        assert!(leaf.validity().is_due(now));
        let leaf = stranger.issue(&names(), Validity::from(now)).unwrap();
        assert!(trust.vouches_for(&leaf, "10.0.0.1", now).is_err());
    }

    #[test]
    fn an_agents_request_is_one() {
        let (ca, agent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open(ca.path()).unwrap();
        let files = leaf::Files::open(&agent.path().join("tls")).unwrap();
        assert!(files.leaf().unwrap().is_none());
        let now = SystemTime::now();
        let worker: IpAddr = "10.0.0.11".parse().unwrap();
        let pem = authority
            .sign(&files.request().unwrap(), worker, Validity::from(now))
            .unwrap();
        let leaf = files.keep(&pem).unwrap();
        // The next agent has it, and the same key.
        let again = leaf::Files::open(&agent.path().join("tls")).unwrap();
        let kept = again.leaf().unwrap().unwrap();
        assert_eq!(kept.validity(), leaf.validity());
        // Another's is refused.
        let foreign = authority.issue(&names(), Validity::from(now)).unwrap();
        assert!(again.keep(foreign.pem()).is_err());
        assert!(again.leaf().unwrap().is_some());
    }
}
