use super::*;

#[test]
fn paths_are_parsed_from_their_end() {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let text = format!("sha256:{}", "0".repeat(64));
    let digest: Digest = text.parse().unwrap();
    let escaped = text.replace(':', "%3A");
    for (path, expected) in [
        ("/", Endpoint::Version),
        ("", Endpoint::Version),
        ("/_catalog", Endpoint::Catalog),
        ("/a/b/tags/list", Endpoint::Tags(name("a/b"))),
        ("/tags/list/tags/list", Endpoint::Tags(name("tags/list"))),
        ("/a/blobs/uploads/", Endpoint::Uploads(name("a"))),
        ("/a/blobs/uploads", Endpoint::Uploads(name("a"))),
        (
            "/a/blobs/uploads/x",
            Endpoint::Upload(name("a"), "x".to_owned()),
        ),
        (
            &format!("/blobs/blobs/{text}"),
            Endpoint::Blob(name("blobs"), digest.clone()),
        ),
        (
            &format!("/a/blobs/{escaped}"),
            Endpoint::Blob(name("a"), digest.clone()),
        ),
        (
            "/a/manifests/1",
            Endpoint::Manifest(name("a"), "1".parse().unwrap()),
        ),
        (
            &format!("/a/manifests/{text}"),
            Endpoint::Manifest(name("a"), Which::Digest(digest.clone())),
        ),
        (
            &format!("/a/referrers/{text}"),
            Endpoint::Referrers(name("a"), digest.clone()),
        ),
    ] {
        assert_eq!(Endpoint::parse(path).unwrap(), expected, "{path}");
    }
    for (path, code) in [
        ("/a", "UNSUPPORTED"),
        ("/a/b/c", "UNSUPPORTED"),
        ("/A/tags/list", "NAME_INVALID"),
        ("//tags/list", "NAME_INVALID"),
        ("/../manifests/x", "NAME_INVALID"),
        ("/a/manifests/.x", "TAG_INVALID"),
        ("/a/manifests/sha256:0", "DIGEST_INVALID"),
        (
            &format!("/a/blobs/sha384:{}", "0".repeat(96)),
            "DIGEST_INVALID",
        ),
    ] {
        assert_eq!(Endpoint::parse(path).unwrap_err().code(), code, "{path}");
    }
}
