use super::*;
use crate::digest::digest_of;
use tucano_image_builder::Compression;

/// Uses arbitrary digests: only their algorithms matter.
fn inflate_it<T>(
    blob: &[u8],
    limit: u64,
    work: impl FnOnce(&mut Chunks) -> io::Result<T>,
) -> io::Result<(T, Hashes)> {
    let any = digest_of(b"");
    let expected = Expected {
        stored: Some(&any),
        inflated: &any,
    };
    let (done, hashes) = inflate(blob, &expected, limit, work)?;
    Ok((done?, hashes))
}

fn read_all(blob: &[u8], limit: u64) -> io::Result<(Vec<u8>, Hashes)> {
    inflate_it(blob, limit, |stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

const ENCODINGS: [(Encoding, Compression); 3] = [
    (Encoding::Plain, Compression::None),
    (Encoding::Gzip, Compression::Gzip),
    (Encoding::Zstd, Compression::Zstd),
];

#[test]
fn each_encoding_round_trips() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    for (encoding, compression) in ENCODINGS {
        let blob = compression.compress(&content).unwrap();
        let (bytes, hashes) = read_all(&blob, 3_000_000).unwrap();
        assert!(bytes == content, "{encoding:?}");
        assert_eq!(hashes.stored.unwrap().finish(), digest_of(&blob));
        assert_eq!(hashes.inflated.finish(), digest_of(&content));
    }
}

#[test]
fn unread_content_is_hashed_too() {
    for (_, compression) in ENCODINGS {
        let blob = compression.compress(&[7; 3_000_000]).unwrap();
        let read_nothing = |_: &mut Chunks| Ok(());
        let ((), hashes) = inflate_it(&blob, 3_000_000, read_nothing).unwrap();
        assert_eq!(hashes.inflated.bytes, 3_000_000);
        assert_eq!(hashes.stored_bytes, blob.len() as u64);
    }
}

#[test]
fn content_over_the_limit_is_an_error() {
    for (encoding, compression) in ENCODINGS {
        let blob = compression.compress(&[0; 3_000_000]).unwrap();
        let error = read_all(&blob, 2_999_999).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{encoding:?}");
    }
}

#[test]
fn a_failing_reader_ends_the_threads() {
    let blob = Compression::Gzip.compress(&vec![0; 30_000_000]).unwrap();
    let fails = |_: &mut Chunks| Err::<(), _>(io::Error::other("enough"));
    let error = inflate_it(&blob, u64::MAX, fails).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}

#[test]
fn the_whole_blob_is_hashed_after_any_failure() {
    let any = digest_of(b"");
    let expected = Expected {
        stored: Some(&any),
        inflated: &any,
    };
    let blob = Compression::Gzip.compress(&vec![0; 30_000_000]).unwrap();
    let mut damaged = blob.clone();
    damaged[20] ^= 1;
    for (blob, limit) in [(&blob, u64::MAX), (&blob, 1000), (&damaged, u64::MAX)] {
        let fails = |_: &mut Chunks| Err::<(), _>(io::Error::other("enough"));
        let (done, hashes) = inflate(&blob[..], &expected, limit, fails).unwrap();
        assert!(done.is_err());
        assert_eq!(hashes.stored.unwrap().finish(), digest_of(blob));
    }
}

#[test]
fn a_blob_checked_by_the_caller_is_only_counted() {
    let any = digest_of(b"");
    let expected = Expected {
        stored: None,
        inflated: &any,
    };
    let blob = Compression::Gzip.compress(b"content").unwrap();
    let read = |_: &mut Chunks| Ok::<_, io::Error>(());
    let (done, hashes) = inflate(&blob[..], &expected, 100, read).unwrap();
    done.unwrap();
    assert!(hashes.stored.is_none());
    assert_eq!(hashes.stored_bytes, blob.len() as u64);
    assert_eq!(hashes.inflated.finish(), digest_of(b"content"));
}

#[test]
fn two_gzip_members_are_one_stream() {
    let mut blob = Compression::Gzip.compress(b"a").unwrap();
    blob.extend(Compression::Gzip.compress(b"b").unwrap());
    assert_eq!(read_all(&blob, 9).unwrap().0, b"ab");
    blob.truncate(blob.len() - 1);
    assert!(read_all(&blob, 9).is_err());
}

#[test]
fn media_types_map_to_encodings() {
    let of = |name: &str| Encoding::of(&MediaType::from(name));
    assert_eq!(
        of("application/vnd.docker.image.rootfs.diff.tar.gzip"),
        Some(Encoding::Gzip)
    );
    assert_eq!(
        of("application/vnd.oci.image.layer.v1.tar+zstd"),
        Some(Encoding::Zstd)
    );
    assert_eq!(
        of("application/vnd.oci.image.layer.v1.tar"),
        Some(Encoding::Plain)
    );
    assert_eq!(
        of("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        None
    );
    assert_eq!(of("application/vnd.oci.image.config.v1+json"), None);
}
