use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::Trust;

fn names() -> [Name; 2] {
    [
        Name::parse("10.0.0.1").unwrap(),
        Name::parse("ctl.example").unwrap(),
    ]
}

fn node() -> Identity {
    Identity::Node("w1".to_owned())
}

#[test]
fn an_authority_is_created_once_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    let first = Authority::open(&tls).unwrap();
    let again = Authority::open(&tls).unwrap();
    assert_eq!(first.pem(), again.pem());
    let mode = |name: &str| fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(KEY), mode(CERTIFICATE)), (0o600, 0o644));
    // Both instances are the same authority.
    let now = SystemTime::now();
    let leaf = first
        .issue(&Identity::Controller, &names(), Validity::from(now))
        .unwrap();
    let trust = Trust::from_pem(again.pem()).unwrap();
    for name in ["10.0.0.1", "ctl.example"] {
        trust.verify(&leaf, name, now).unwrap();
    }
    assert!(trust.verify(&leaf, "10.0.0.2", now).is_err());
    assert!(!format!("{first:?} {leaf:?}").contains("PRIVATE"));
}

#[test]
fn an_interrupted_creation_is_completed_and_a_recreated_certificate_is_equivalent() {
    let directory = tempfile::tempdir().unwrap();
    let first = Authority::open(directory.path()).unwrap();
    let now = SystemTime::now();
    let leaf = first
        .issue(&Identity::Controller, &names(), Validity::from(now))
        .unwrap();
    fs::remove_file(directory.path().join(CERTIFICATE)).unwrap();
    fs::write(directory.path().join("ca.pem.new"), "half of a cert").unwrap();
    let again = Authority::open(directory.path()).unwrap();
    let trust = Trust::from_pem(again.pem()).unwrap();
    trust.verify(&leaf, "10.0.0.1", now).unwrap();
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    for (remove, write, part) in [
        (Some(KEY), None, "the authority's key is missing"),
        (None, Some((KEY, "x")), "not a private key"),
        (None, Some((CERTIFICATE, "x")), "holds no certificate"),
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
    assert!(error.contains("does not match the key"), "{error}");
}

#[test]
fn a_signing_request_does_not_decide_what_the_certificate_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let now = SystemTime::now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(vec!["10.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "controller");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let worker = Name::parse("10.0.0.11").unwrap();
    let pem = authority
        .sign(
            &request,
            &node(),
            std::slice::from_ref(&worker),
            Validity::from(now),
        )
        .unwrap();
    let leaf = Leaf::new(&pem, &key.serialize_pem()).unwrap();
    let trust = Trust::from_pem(authority.pem()).unwrap();
    trust.verify(&leaf, "10.0.0.11", now).unwrap();
    assert!(trust.verify(&leaf, "10.0.0.1", now).is_err());
    assert_eq!(leaf.identity(), Some(&node()));
    // Nor is the leaf accepted as an authority.
    let own = Issuer::from_ca_cert_pem(&pem, key).unwrap();
    let forged_key = KeyPair::generate().unwrap();
    let forged = leaf_params(&Identity::Controller, &names(), Validity::from(now)).unwrap();
    let forged = forged.signed_by(&forged_key, &own).unwrap().pem();
    let chain = format!("{forged}{pem}");
    let forged = Leaf::new(&chain, &forged_key.serialize_pem()).unwrap();
    assert!(trust.verify(&forged, "10.0.0.1", now).is_err());
    for nonsense in ["", "x", authority.pem()] {
        let refused = authority.sign(
            nonsense,
            &node(),
            std::slice::from_ref(&worker),
            Validity::from(now),
        );
        assert!(matches!(refused, Err(Error::Request(_))), "{refused:?}");
    }
    let tampered = request.replacen('M', "N", 2);
    assert!(
        authority
            .sign(
                &tampered,
                &node(),
                std::slice::from_ref(&worker),
                Validity::from(now)
            )
            .is_err()
    );
}

#[test]
fn an_expired_or_foreign_certificate_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::open(one.path()).unwrap();
    let stranger = Authority::open(other.path()).unwrap();
    let now = SystemTime::now();
    let trust = Trust::from_pem(authority.pem()).unwrap();
    let day = Duration::from_secs(86_400);
    let over = Validity::from(now - day * 31);
    let leaf = authority
        .issue(&Identity::Controller, &names(), over)
        .unwrap();
    let error = trust.verify(&leaf, "10.0.0.1", now).unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
    assert!(leaf.validity().is_due(now));
    let leaf = stranger
        .issue(&Identity::Controller, &names(), Validity::from(now))
        .unwrap();
    assert!(trust.verify(&leaf, "10.0.0.1", now).is_err());
}

#[test]
fn an_agents_signing_request_is_accepted() {
    let (ca, agent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::open(ca.path()).unwrap();
    let files = leaf::Files::open(&agent.path().join("tls")).unwrap();
    assert!(files.leaf().unwrap().is_none());
    let now = SystemTime::now();
    let worker = Name::parse("10.0.0.11").unwrap();
    let pem = authority
        .sign(
            &files.request().unwrap(),
            &node(),
            &[worker],
            Validity::from(now),
        )
        .unwrap();
    let leaf = files.store(&pem).unwrap();
    // It survives a restart, with the same key.
    let again = leaf::Files::open(&agent.path().join("tls")).unwrap();
    let kept = again.leaf().unwrap().unwrap();
    assert_eq!(kept.validity(), leaf.validity());
    // A certificate of another key is refused.
    let foreign = authority
        .issue(&Identity::Controller, &names(), Validity::from(now))
        .unwrap();
    assert!(again.store(foreign.pem()).is_err());
    assert!(again.leaf().unwrap().is_some());
}
