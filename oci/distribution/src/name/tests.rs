use super::*;

#[test]
fn names_follow_the_specification() {
    for good in ["a", "hello", "a/b/c", "a.b_c__d-e--f/0", "blobs/uploads"] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    let long = "a".repeat(256);
    for bad in [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a_",
        "-a",
        "a..b",
        "a___b",
        "a._b",
        "a b",
        "ä",
        "..",
        long.as_str(),
    ] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
}

#[test]
fn tags_follow_the_specification() {
    for good in ["1", "_x", "V1.0-rc.1", "latest", &"a".repeat(128)] {
        assert!(good.parse::<Tag>().is_ok(), "{good}");
    }
    for bad in ["", ".a", "-a", "a b", "a/b", "a:b", "ü", &"a".repeat(129)] {
        assert!(bad.parse::<Tag>().is_err(), "{bad}");
    }
}

#[test]
fn references_are_by_tag_or_digest() {
    let digest = format!("sha256:{}", "0".repeat(64));
    for good in ["hello:1", "team/hello:v1.0", &format!("a/b@{digest}")] {
        assert_eq!(good.parse::<Reference>().unwrap().to_string(), *good);
    }
    for (bad, part) in [
        ("hello", "name:tag"),
        ("hello.tar", "name:tag"),
        ("hello:", "not a tag"),
        (":1", "not a repository"),
        ("127.0.0.1:7070/hello:1", "not a repository"),
        ("hello@sha256:0", "not a digest"),
        (&format!("hello@sha384:{}", "0".repeat(96)), "not a digest"),
        (&digest, "not a repository"),
    ] {
        let error = bad.parse::<Reference>().map(|it| it.to_string());
        match error {
            Err(error) => assert!(error.to_string().contains(part), "{bad}: {error}"),
            // A digest alone looks like a name with a tag, so callers that accept both try a digest first.
            Ok(text) => assert_eq!(text, digest),
        }
    }
}
