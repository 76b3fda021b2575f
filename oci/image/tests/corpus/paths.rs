//! Names that are not clean, as jib, bazel rules, `tar -P` and scripts write them.

use tucano_image_builder::{Entry, Kind};

use crate::kit::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let file = |path: &str| Entry::file(path, "x");
    let one = |name, path: &str| case(name, [vec![Entry::file(path, "x")]]);
    let escapes = ("layer_path_escapes", "leads out of it");
    vec![
        one("dots and parents within a path", "./data/./x/../y")
            .has(&[("data/y", "file 644 0:0 x"), ("data/x", "absent")]),
        one("a parent within a path", "www/x/../b.html").has(&[("www/b.html", "file 644 0:0 x")]),
        one("an absolute path", "/etc/f").has(&[("etc/f", "file 644 0:0 x")]),
        one("doubled slashes", "//a///b").has(&[("a/b", "file 644 0:0 x")]),
        case(
            "a directory that ends with a parent",
            [vec![Entry::directory("a/b/..").mode(0o700), file("a/c")]],
        )
        .has(&[("a", "dir 700 0:0"), ("a/b", "absent")]),
        case(
            "a path that cancels itself is the root",
            [vec![Entry::directory("a/..").mode(0o711), file("f")]],
        )
        .has(&[("", "dir 711 0:0"), ("a", "absent")]),
        case(
            "a whiteout with dots",
            [
                vec![file("a/b"), file("a/c")],
                vec![file("./a/./.wh.b"), file("x/../a/.wh.c")],
            ],
        )
        .has(&[("a/b", "absent"), ("a/c", "absent"), ("x", "absent")]),
        case(
            "an opaque marker with dots",
            [
                vec![file("a/b")],
                vec![file("a/x/../.wh..wh..opq"), file("a/c")],
            ],
        )
        .has(&[
            ("a/b", "absent"),
            ("a/c", "file 644 0:0 x"),
            ("a/x", "absent"),
        ]),
        case(
            "a hard link whose target has dots",
            [vec![
                file("f"),
                Entry::hardlink("g", "./a/../f"),
                Entry::hardlink("h", "/f"),
                Entry::hardlink("i", "././f"),
            ]],
        )
        .has(&[
            ("g", "file 644 0:0 x"),
            ("h", "file 644 0:0 x"),
            ("i", "file 644 0:0 x"),
        ]),
        case(
            "one file under two spellings",
            [vec![
                Entry::file("a/./f", "first"),
                Entry::file("a//f", "second"),
            ]],
        )
        .has(&[("a/f", "file 644 0:0 second")]),
        one("a path out of the image", "../x").refused(escapes.0, escapes.1),
        one("a path that leaves and comes back", "a/../../x").refused(escapes.0, escapes.1),
        one("an absolute path out of the image", "/../x").refused(escapes.0, escapes.1),
        case(
            "a whiteout out of the image",
            [vec![file("a"), file("../.wh.x")]],
        )
        .refused(escapes.0, escapes.1),
        case("a whiteout of the parent", [vec![file("a/.wh...")]]).refused(escapes.0, escapes.1),
        case(
            "a name that is not UTF-8",
            [vec![Entry::new(&b"caf\xe9"[..], Kind::File(b"x".to_vec()))]],
        ),
        one("a name with spaces and a line break", "a b\nc").has(&[("a b\nc", "file 644 0:0 x")]),
        one("a backslash in a name", "a\\b").has(&[("a\\b", "file 644 0:0 x")]),
        case(
            "the longest name",
            [vec![Entry::file(&"n".repeat(255), "x")]],
        ),
        case(
            "a name that is too long",
            [vec![Entry::file(&"n".repeat(256), "x")]],
        )
        .refused("malformed", "longer than 255 bytes"),
        case(
            "a path of three thousand bytes",
            [vec![Entry::file(
                &format!("{}f", format!("{}/", "d".repeat(150)).repeat(20)),
                "x",
            )]],
        ),
    ]
}
