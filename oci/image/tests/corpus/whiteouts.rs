//! Whiteouts and opaque markers.

use tucano_image_builder::{Entry, Kind};

use crate::kit::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let file = |path: &str| Entry::file(path, "x");
    let gone = |path| [(path, "absent")];
    vec![
        case(
            "a whiteout of a file",
            [vec![file("a"), file("b")], vec![file(".wh.a")]],
        )
        .has(&[
            ("a", "absent"),
            ("b", "file 644 0:0 x"),
            (".wh.a", "absent"),
        ]),
        case(
            "a whiteout that is a hard link to a lower file",
            [
                vec![file("tmp/key"), file("tmp/other")],
                vec![Entry::hardlink("tmp/.wh.key", "tmp/other")],
            ],
        )
        .has(&gone("tmp/key")),
        case(
            "a whiteout that is a directory",
            [vec![file("d/x")], vec![Entry::directory(".wh.d")]],
        )
        .has(&gone("d")),
        case(
            "a whiteout that is a symbolic link",
            [vec![file("f")], vec![Entry::symlink(".wh.f", "/nowhere")]],
        )
        .has(&gone("f")),
        case(
            "a whiteout of nothing",
            [vec![file("a")], vec![file(".wh.nothing")]],
        )
        .has(&gone("nothing")),
        case(
            "whiteouts below a whiteout",
            [
                vec![file("test/test"), file("test/sub/x")],
                vec![
                    file(".wh.test"),
                    file("test/.wh.test"),
                    file("test/sub/.wh.x"),
                ],
            ],
        )
        .has(&gone("test")),
        case(
            "a whiteout and a new file of its name",
            [
                vec![file("a"), file("b")],
                vec![
                    file(".wh.a"),
                    Entry::file("a", "new"),
                    Entry::file("b", "new"),
                    file(".wh.b"),
                ],
            ],
        )
        .has(&[("a", "file 644 0:0 new"), ("b", "file 644 0:0 new")]),
        case(
            "an opaque directory before and after its files",
            [
                vec![file("a/old"), file("b/old")],
                vec![
                    Entry::directory("a"),
                    file("a/.wh..wh..opq"),
                    file("a/new"),
                    Entry::directory("b"),
                    file("b/new"),
                    file("b/.wh..wh..opq"),
                ],
            ],
        )
        .has(&[
            ("a/old", "absent"),
            ("a/new", "file 644 0:0 x"),
            ("b/old", "absent"),
            ("b/new", "file 644 0:0 x"),
        ]),
        case(
            "an opaque root",
            [
                vec![file("old"), Entry::directory("etc").mode(0o700)],
                vec![file(".wh..wh..opq"), file("new"), file("etc/x")],
                vec![file("top")],
            ],
        )
        .has(&[
            ("old", "absent"),
            ("new", "file 644 0:0 x"),
            ("top", "file 644 0:0 x"),
            ("etc", "dir 755 0:0"),
        ]),
        case(
            "an opaque root in a single layer",
            [vec![file("./.wh..wh..opq"), file("f")]],
        )
        .has(&[("f", "file 644 0:0 x")]),
        case(
            "files that AUFS kept for itself",
            [vec![
                file(".wh..wh.aufs"),
                Entry::directory(".wh..wh.orph"),
                Entry::directory(".wh..wh.plnk"),
                file(".wh..wh.plnk/1.2"),
                file("f"),
            ]],
        )
        .has(&[("f", "file 644 0:0 x"), (".wh..wh.plnk", "absent")]),
        case(
            "names that only look like whiteouts",
            [vec![file("a.wh.b"), file(".wh"), file("wh.x")]],
        )
        .has(&[("a.wh.b", "file 644 0:0 x"), (".wh", "file 644 0:0 x")]),
        case(
            "a device 0:0 as overlayfs has it",
            [
                vec![file("f")],
                vec![Entry::new("f", Kind::CharDevice { major: 0, minor: 0 })],
            ],
        )
        .has(&gone("f")),
        case(
            "a file in place of a directory and back",
            [
                vec![file("d/x")],
                vec![Entry::file("d", "file")],
                vec![Entry::directory("d").mode(0o700), file("d/y")],
            ],
        )
        .has(&[
            ("d", "dir 700 0:0"),
            ("d/x", "absent"),
            ("d/y", "file 644 0:0 x"),
        ]),
        case("a whiteout without a name", [vec![file("a/.wh.")]])
            .refused("malformed", "an empty name"),
    ]
}
