use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_stream_is_hashed_and_counted() {
    assert_eq!(digest_of(b"").to_string(), EMPTY);
    let mut stream = Hashing::like(&digest_of(b""), &b"abc"[..]);
    io::copy(&mut stream, &mut io::sink()).unwrap();
    assert_eq!(stream.hasher.bytes, 3);
    assert_eq!(stream.hasher.finish(), digest_of(b"abc"));
}

#[test]
fn sha512_is_supported() {
    let expected: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let digest = digest_like(&expected, b"abc");
    // FIPS 180-4's own example.
    assert!(
        digest
            .to_string()
            .starts_with("sha512:ddaf35a193617abacc417349ae204131")
    );
    assert!(digest.digest().ends_with("2a9ac94fa54ca49f"));
}

#[test]
fn digests_map_to_file_names() {
    let digest: Digest = EMPTY.parse().unwrap();
    assert_eq!(from_hex(hex(&digest).unwrap()), Some(digest.clone()));
    let long: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    assert_eq!(from_hex(hex(&long).unwrap()), Some(long.clone()));
    let other: Digest = format!("sha384:{}", "0".repeat(96)).parse().unwrap();
    assert_eq!(hex(&other).unwrap_err().code(), "unsupported");
    for bad in ["", "abc", "../../etc/passwd", &"g".repeat(64)] {
        assert_eq!(from_hex(bad), None, "{bad}");
    }
    for digest in [digest, long] {
        let path = format!("{}/{}", algorithm(&digest).unwrap(), digest.digest());
        assert_eq!(from_blob_path(&path), Some(Ok(digest)));
    }
    let mixed = format!("sha512/{}", "0".repeat(64));
    assert!(from_blob_path(&mixed).unwrap().is_err());
    assert_eq!(from_blob_path("md5/00"), None);
}
