use super::*;

fn secret(name: &str, version: u64) -> SecretVersion {
    SecretVersion {
        name: name.parse().unwrap(),
        version,
    }
}

#[test]
fn a_value_comes_back_as_it_was_and_is_never_sealed_alike() {
    let key = Key::generate().unwrap();
    let password = secret("password", 1);
    let large = vec![7; 1 << 20];
    for value in [b"pa$1wor$D\n".as_slice(), b"\0\xff", b"", &large] {
        let sealed = key.seal(&password, value).unwrap();
        let other = key.seal(&password, value).unwrap();
        assert_ne!(sealed, other);
        let keys = [Key::generate().unwrap(), key.clone()];
        let unsealed = unseal(&keys, &password, &sealed).unwrap();
        assert_eq!(unsealed.as_slice(), value);
        assert_eq!(value_bytes(&sealed), value.len());
    }
}

#[test]
fn a_value_cannot_stand_for_another() {
    let key = Key::generate().unwrap();
    let keys = [key.clone()];
    let sealed = key.seal(&secret("password", 1), b"x").unwrap();
    for other in [secret("password", 2), secret("passwords", 1)] {
        let error = unseal(&keys, &other, &sealed).unwrap_err();
        assert_eq!(error, UnsealError::Damaged(other));
    }
}

#[test]
fn a_changed_value_is_damaged_and_another_key_is_unknown() {
    let key = Key::generate().unwrap();
    let password = secret("password", 1);
    let sealed = key.seal(&password, b"value").unwrap();
    let text = sealed.as_str();
    let (head, data) = text.rsplit_once('.').unwrap();
    let mut bytes = BASE64_STANDARD.decode(data).unwrap();
    for index in 0..bytes.len() {
        bytes[index] ^= 1;
        let changed = Sealed::from(format!("{head}.{}", BASE64_STANDARD.encode(&bytes)));
        let error = unseal(std::slice::from_ref(&key), &password, &changed).unwrap_err();
        assert_eq!(error, UnsealError::Damaged(password.clone()));
        bytes[index] ^= 1;
    }
    for broken in ["", "v1", "v1.", &text[..text.len() - 5], "v2.a.b"] {
        let broken = Sealed::from(broken.to_owned());
        assert!(unseal(std::slice::from_ref(&key), &password, &broken).is_err());
    }
    let others = [Key::generate().unwrap()];
    let error = unseal(&others, &password, &sealed).unwrap_err();
    assert_eq!(error, UnsealError::UnknownKey(password));
}

#[test]
fn keys_are_not_printed() {
    let key = Key::generate().unwrap();
    let text = format!("{key:?}");
    assert_eq!(text.len(), "Key()".len() + 16);
}
