use std::fs;

use super::*;
use crate::Authority;

#[test]
fn only_certificates_are_copied() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(&directory.path().join("tls")).unwrap();
    let more = format!("secret\n{}secret\n", authority.pem());
    let copy = directory.path().join("ca.pem");
    let trust = Trust::from_pem(&more).unwrap();
    trust.write(&copy).unwrap();
    trust.write(&copy).unwrap();
    let written = fs::read_to_string(&copy).unwrap();
    assert!(!written.contains("secret"), "{written}");
    assert_eq!(Trust::read(&copy).unwrap().unwrap().pem(), written);
}

#[test]
fn a_file_without_certificates_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    assert!(Trust::read(&path).unwrap().is_none());
    for text in [
        "",
        "root:x:0:0",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&path, text).unwrap();
        let error = Trust::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("ca.pem") && !error.contains("root:"),
            "{error}"
        );
    }
}
