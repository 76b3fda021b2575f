use super::*;

#[test]
fn paths_become_relative_and_clean() {
    for (path, normal) in [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("/etc/passwd", "etc/passwd"),
        ("./", ""),
        ("/", ""),
        ("a/./...", "a/..."),
        ("./data/./x/../y", "data/y"),
        ("www/x/../b.html", "www/b.html"),
        ("/a/../b", "b"),
        ("a/..", ""),
        ("a/b/../../c/", "c"),
    ] {
        assert_eq!(clean(path.as_bytes()).unwrap(), normal.as_bytes(), "{path}");
    }
}

#[test]
fn paths_out_of_the_layer_are_refused() {
    for path in ["..", "../../etc/x", "a/../../b", "a/../..", "/../x", "./.."] {
        assert_eq!(clean(path.as_bytes()), Err(PathProblem::Escapes), "{path}");
    }
}

#[test]
fn paths_that_the_kernel_refuses_are_refused() {
    let (long, deep) = ("x".repeat(256), "x/".repeat(257));
    let longest = format!("{}/", "x".repeat(40)).repeat(100);
    for path in ["", "a\0b", &long, &deep, &longest] {
        assert!(
            matches!(clean(path.as_bytes()), Err(PathProblem::Malformed(_))),
            "{path:?}"
        );
    }
    assert!(clean("x/".repeat(256).as_bytes()).is_ok());
    assert!(clean("x".repeat(255).as_bytes()).is_ok());
}

#[test]
fn the_last_name_is_split_off() {
    assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
    assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
}
