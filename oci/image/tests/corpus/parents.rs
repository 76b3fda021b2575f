//! Directories without an entry of their own in an upper layer: kaniko, jib, bazel and `tar` lists of files leave them out.

use tucano_image_builder::Entry;

use crate::kit::{Case, case};

fn directory(path: &str, mode: u32, owner: u32) -> Entry {
    Entry::directory(path).mode(mode).owner(owner, owner)
}

pub(crate) fn cases() -> Vec<Case> {
    let file = |path: &str| Entry::file(path, "x");
    vec![
        case(
            "the sticky /tmp of the base",
            [vec![directory("tmp/", 0o1777, 0)], vec![file("tmp/x")]],
        )
        .has(&[("tmp", "dir 1777 0:0"), ("tmp/x", "file 644 0:0 x")]),
        case(
            "a private home of a user",
            [vec![directory("data/", 0o700, 1000)], vec![file("data/x")]],
        )
        .has(&[("data", "dir 700 1000:1000")]),
        case(
            "a set-group-ID directory",
            [vec![directory("srv/", 0o2775, 7)], vec![file("srv/x")]],
        )
        .has(&[("srv", "dir 2775 7:7"), ("srv/x", "file 644 0:0 x")]),
        case(
            "an attribute of the base's directory",
            [
                vec![directory("d/", 0o750, 1).pax("SCHILY.xattr.user.color", "blue")],
                vec![file("d/x")],
            ],
        )
        .has(&[("d", "dir 750 1:1"), ("d", "user.color=blue")]),
        case(
            "three levels of directories",
            [
                vec![
                    directory("a/", 0o700, 1),
                    directory("a/b/", 0o710, 2),
                    directory("a/b/c/", 0o711, 3),
                ],
                vec![file("a/b/c/x")],
            ],
        )
        .has(&[
            ("a", "dir 700 1:1"),
            ("a/b", "dir 710 2:2"),
            ("a/b/c", "dir 711 3:3"),
        ]),
        case(
            "an entry of its own in the upper layer",
            [
                vec![directory("tmp/", 0o1777, 0), directory("d/", 0o700, 5)],
                vec![directory("tmp/", 0o755, 0), file("tmp/x"), file("d/x")],
            ],
        )
        .has(&[("tmp", "dir 755 0:0"), ("d", "dir 700 5:5")]),
        case(
            "an entry of its own after its files",
            [
                vec![directory("d/", 0o700, 5)],
                vec![file("d/x"), directory("d/", 0o755, 0)],
            ],
        )
        .has(&[("d", "dir 755 0:0")]),
        case(
            "two upper layers without an entry",
            [
                vec![directory("d/", 0o700, 5)],
                vec![file("d/x")],
                vec![file("d/y"), file("other/y")],
            ],
        )
        .has(&[
            ("d", "dir 700 5:5"),
            ("d/x", "file 644 0:0 x"),
            ("d/y", "file 644 0:0 x"),
            ("other", "dir 755 0:0"),
        ]),
        case(
            "the next lower entry counts",
            [
                vec![directory("d/", 0o700, 5)],
                vec![directory("d/", 0o770, 6)],
                vec![file("d/x")],
            ],
        )
        .has(&[("d", "dir 770 6:6")]),
        case(
            "a directory that was removed in between",
            [
                vec![directory("d/", 0o700, 5), file("d/old")],
                vec![Entry::file(".wh.d", "")],
                vec![file("d/x")],
            ],
        )
        .has(&[("d", "dir 755 0:0"), ("d/old", "absent")]),
        case(
            "a directory that is removed and filled in one layer",
            [
                vec![directory("d/", 0o700, 5), file("d/old")],
                vec![Entry::file(".wh.d", ""), file("d/x")],
            ],
        )
        .has(&[("d", "dir 755 0:0"), ("d/old", "absent")]),
        case(
            "an opaque directory without an entry",
            [
                vec![directory("d/", 0o700, 5), file("d/old")],
                vec![Entry::file("d/.wh..wh..opq", ""), file("d/x")],
            ],
        )
        .has(&[
            ("d", "dir 700 5:5"),
            ("d/old", "absent"),
            ("d/x", "file 644 0:0 x"),
        ]),
        case(
            "a whiteout in a directory without an entry",
            [
                vec![directory("d/", 0o700, 5), file("d/old"), file("d/kept")],
                vec![Entry::file("d/.wh.old", "")],
            ],
        )
        .has(&[
            ("d", "dir 700 5:5"),
            ("d/old", "absent"),
            ("d/kept", "file 644 0:0 x"),
        ]),
        case(
            "the root's own mode",
            [vec![directory("./", 0o711, 3), file("a")], vec![file("b")]],
        )
        .has(&[("", "dir 711 3:3"), ("a", "file 644 0:0 x")]),
        case(
            "a directory over a lower symbolic link",
            [
                vec![
                    directory("usr/lib/", 0o755, 0),
                    Entry::symlink("lib", "usr/lib"),
                ],
                vec![file("lib/x")],
            ],
        )
        .has(&[("lib", "dir 755 0:0"), ("usr/lib/x", "absent")]),
        case(
            "a directory in place of a file of its layer",
            [
                vec![directory("d/", 0o700, 5), file("d/old")],
                vec![file("d"), directory("d/", 0o711, 0), file("d/x")],
            ],
        )
        .has(&[("d", "dir 711 0:0"), ("d/old", "absent")]),
        case(
            "a directory over a lower file",
            [
                vec![Entry::file("d", "file").mode(0o600).owner(5, 5)],
                vec![file("d/x")],
            ],
        )
        .has(&[("d", "dir 755 0:0"), ("d/x", "file 644 0:0 x")]),
    ]
}
