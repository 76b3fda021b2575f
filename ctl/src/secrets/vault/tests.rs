use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tucano_api::units::Timestamp;
use tucano_planner::SealedVersion;

use super::*;

fn version(version: u64) -> SecretVersion {
    SecretVersion {
        name: "password".parse().unwrap(),
        version,
    }
}

fn record(sealed: &[(u64, Sealed)]) -> Vec<SecretRecord> {
    let versions = sealed.iter().map(|(version, sealed)| SealedVersion {
        version: *version,
        sealed: sealed.clone(),
        set_at: Timestamp(0),
    });
    vec![SecretRecord {
        name: "password".parse().unwrap(),
        versions: versions.collect(),
    }]
}

fn keys_in(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_is_generated_with_the_first_secret_for_the_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let vault = Vault::open(path.clone());
    assert!(vault.keys().is_err() && !path.exists());
    let keys = vault.keys_or_first().unwrap();
    let sealed = keys.seal(&version(1), b"x").unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The next controller reads it.
    let vault = Vault::open(path);
    let value = vault.keys().unwrap().unseal(&version(1), &sealed).unwrap();
    assert_eq!(value.as_slice(), b"x");
    assert_eq!(vault.problem(&record(&[(1, sealed)])), None);
}

#[test]
fn a_missing_key_is_never_replaced_by_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let vault = Vault::open(path.clone());
    let keys = vault.keys_or_first().unwrap();
    let stored = record(&[(1, keys.seal(&version(1), b"x").unwrap())]);
    let copy = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for error in [
        vault.keys().unwrap_err(),
        vault.add_key().unwrap_err(),
        vault.drop_earlier_keys(&stored).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("is missing: restore it"), "{error}");
    }
    assert!(!path.exists());
    assert!(vault.problem(&stored).is_some());
    // It is found as soon as it is back.
    write(&path, &copy, 0o600);
    assert_eq!(vault.problem(&stored), None);
    // A file that is replaced while the controller runs is read, and is not written over.
    vault.add_key().unwrap();
    write(&path, &copy, 0o600);
    vault.drop_earlier_keys(&stored).unwrap();
    assert_eq!(fs::read(&path).unwrap(), copy);
}

#[test]
fn values_of_another_key_are_known_without_reading_them() {
    let directory = tempfile::tempdir().unwrap();
    let vault = Vault::open(directory.path().join("a"));
    let other = Vault::open(directory.path().join("b"));
    let keys = vault.keys_or_first().unwrap();
    let foreign = other.keys_or_first().unwrap().seal(&version(2), b"y");
    let own = keys.seal(&version(1), b"x").unwrap();
    let stored = record(&[(1, own.clone()), (2, foreign.unwrap())]);
    let error = keys.check_known(stored.iter()).unwrap_err();
    assert_eq!(error, UnsealError::UnknownKey(version(2)).into());
    assert!(keys.check_known(record(&[(1, own)]).iter()).is_ok());
    assert!(vault.problem(&stored).unwrap().contains("does not have"));
}

#[test]
fn a_key_file_that_is_not_one_is_explained_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
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
        write(&path, text, mode);
        let error = Vault::open(path.clone()).keys_or_first().unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

/// 32 bytes of zero.
const BASE64_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn a_new_key_can_be_introduced_and_interrupted_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.key");
    let vault = Vault::open(path.clone());
    let keys = vault.keys_or_first().unwrap();
    let old = keys.seal(&version(1), b"x").unwrap();
    // Killed after the key was added: both values can be read.
    vault.add_key().unwrap();
    let vault = Vault::open(path.clone());
    assert_eq!(keys_in(&path), 2);
    let keys = vault.keys().unwrap();
    let new = keys.seal(&version(2), b"y").unwrap();
    for (number, value, sealed) in [(1, b"x", &old), (2, b"y", &new)] {
        let unsealed = keys.unseal(&version(number), sealed).unwrap();
        assert_eq!(unsealed.as_slice(), value);
    }
    // An earlier key stays while a value needs it.
    let stored = record(&[(1, old), (2, new)]);
    vault.drop_earlier_keys(&stored).unwrap();
    assert_eq!(keys_in(&path), 2);
    let stored = vec![keys.reseal(&stored[0]).unwrap()];
    // Killed after the values were stored.
    let vault = Vault::open(path.clone());
    assert_eq!(vault.problem(&stored), None);
    vault.drop_earlier_keys(&stored).unwrap();
    assert_eq!(keys_in(&path), 1);
    assert_eq!(vault.problem(&stored), None);
}
