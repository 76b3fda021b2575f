use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

#[test]
fn a_damaged_key_is_set_aside_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(KEY);
    Files::open(directory.path()).unwrap();
    let whole = fs::read(&path).unwrap();
    for damage in [
        Vec::new(),
        whole[..whole.len() / 2].to_vec(),
        vec![0xff; 200],
        vec![0; 4096],
    ] {
        fs::write(&path, &damage).unwrap();
        let files = Files::open(directory.path()).unwrap();
        files.request().unwrap();
        let aside = directory.path().join("key.pem.damaged");
        assert_eq!(fs::read(aside).unwrap(), damage);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_damaged_certificate_is_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::open(directory.path()).unwrap();
    for damage in [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA", &[0xff; 64]] {
        fs::write(directory.path().join(CERTIFICATE), damage).unwrap();
        assert!(files.leaf().unwrap().is_none());
    }
}
