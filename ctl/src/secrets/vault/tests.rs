use std::{fs, os::unix::fs::PermissionsExt};

use tucano_api::units::Timestamp;

use super::*;

fn version(version: u64) -> SecretVersion {
    SecretVersion {
        name: "password".parse().unwrap(),
        version,
    }
}

fn record(sealed: &[(u64, Sealed)]) -> SecretRecord {
    let versions = sealed.iter().map(|(version, sealed)| SealedVersion {
        version: *version,
        sealed: sealed.clone(),
        set_at: Timestamp(0),
    });
    SecretRecord {
        name: "password".parse().unwrap(),
        versions: versions.collect(),
    }
}

#[test]
fn a_key_is_generated_with_the_first_secret_for_the_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let vault = Vault::open(path.clone());
    assert!(!path.exists());
    let sealed = vault.seal(&version(1), b"x", true).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The next controller reads it.
    let vault = Vault::open(path);
    assert_eq!(vault.unseal(&version(1), &sealed).unwrap().as_slice(), b"x");
    assert_eq!(vault.problem([record(&[(1, sealed)])].iter()), None);
}

#[test]
fn a_missing_key_is_never_replaced_by_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let vault = Vault::open(path.clone());
    let sealed = vault.seal(&version(1), b"x", true).unwrap();
    let copy = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let vault = Vault::open(path.clone());
    for error in [
        vault.unseal(&version(1), &sealed).unwrap_err(),
        vault.seal(&version(2), b"y", false).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("is missing: restore it"),
            "{error}"
        );
    }
    assert!(!path.exists());
    assert!(
        vault
            .problem([record(&[(1, sealed.clone())])].iter())
            .is_some()
    );
    // It is found as soon as it is back.
    fs::write(&path, copy).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(vault.unseal(&version(1), &sealed).unwrap().as_slice(), b"x");
}

#[test]
fn a_key_file_that_is_not_one_is_explained_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let key = BASE64_KEY;
    for (text, mode, expected) in [
        ("", 0o600, "there is no key in it"),
        ("# nothing\n", 0o600, "there is no key in it"),
        ("abc\n", 0o600, "line 1 is not a key"),
        (
            &format!("{key}\n{}\n", &key[..20]),
            0o600,
            "line 2 is not a key",
        ),
        (key, 0o640, "chmod 600"),
    ] {
        write(text, mode);
        let error = Vault::open(path.clone()).seal(&version(1), b"x", true);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // Another cluster's key.
    write(key, 0o600);
    let other = tempfile::tempdir().unwrap();
    let sealed = Vault::open(other.path().join("key")).seal(&version(1), b"x", true);
    let error = Vault::open(path).unseal(&version(1), &sealed.unwrap());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("the key file does not have")
    );
}

/// 32 bytes of zero.
const BASE64_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn a_new_key_can_be_introduced_and_interrupted_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let keys = || {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let vault = Vault::open(path.clone());
    let stored = record(&[(1, vault.seal(&version(1), b"x", true).unwrap())]);
    // Killed after the key was added: both values can be read.
    vault.add_key().unwrap();
    let vault = Vault::open(path.clone());
    assert_eq!(keys(), 2);
    let new = vault.seal(&version(2), b"y", false).unwrap();
    let stored = record(&[(1, stored.versions[0].sealed.clone()), (2, new)]);
    for (number, value) in [(1, b"x"), (2, b"y")] {
        let sealed = &stored.version(number).unwrap().sealed;
        assert_eq!(
            vault.unseal(&version(number), sealed).unwrap().as_slice(),
            value
        );
    }
    // An earlier key stays while a value needs it.
    vault.drop_earlier_keys([stored.clone()].iter()).unwrap();
    assert_eq!(keys(), 2);
    let stored = vault.reseal([stored].iter()).unwrap();
    // Killed after the values were stored.
    let vault = Vault::open(path.clone());
    assert_eq!(vault.problem(stored.iter()), None);
    vault.drop_earlier_keys(stored.iter()).unwrap();
    assert_eq!(keys(), 1);
    assert_eq!(vault.problem(stored.iter()), None);
    assert_eq!(Vault::open(path.clone()).problem(stored.iter()), None);
}
