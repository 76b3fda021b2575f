//! Symbolic and hard links.

use tucano_image_builder::Entry;

use crate::kit::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let file = |path: &str| Entry::file(path, "x");
    vec![
        case(
            "a hard link to a symbolic link",
            [vec![
                file("f"),
                Entry::symlink("l", "f"),
                Entry::hardlink("h", "l"),
            ]],
        )
        .has(&[("h", "link f")]),
        case(
            "a hard link to a file of a lower layer",
            [vec![file("f")], vec![Entry::hardlink("g", "f")]],
        )
        .refused("malformed", "does not have")
        .because("layers are shared between images, so a link cannot reach into another one"),
        case(
            "a hard link to itself",
            [vec![file("f"), Entry::hardlink("f", "f")]],
        )
        .refused("malformed", "hard link to itself"),
        case(
            "a hard link to itself by another spelling",
            [vec![file("f"), Entry::hardlink("./f", "/x/../f")]],
        )
        .refused("malformed", "hard link to itself"),
        case(
            "a hard link to nothing",
            [vec![Entry::hardlink("g", "nothing")]],
        )
        .refused("malformed", "does not have"),
        case(
            "a hard link to a later file",
            [vec![Entry::hardlink("g", "f"), file("f")]],
        )
        .refused("malformed", "does not have"),
        case(
            "a hard link to a directory",
            [vec![Entry::directory("d"), Entry::hardlink("g", "d")]],
        )
        .refused("malformed", "hard link to a directory"),
        case(
            "a hard link out of the image",
            [vec![Entry::hardlink("g", "../../etc/passwd")]],
        )
        .refused("layer_path_escapes", "leads out"),
        case(
            "absolute, dangling and circular symbolic links",
            [vec![
                Entry::symlink("a", "/etc/x"),
                Entry::symlink("b", "nowhere"),
                Entry::symlink("c", "c"),
                Entry::symlink("d", "../../../.."),
            ]],
        )
        .has(&[
            ("a", "link /etc/x"),
            ("b", "link nowhere"),
            ("c", "link c"),
            ("d", "link ../../../.."),
        ]),
        case(
            "a file through a symbolic link of its layer",
            [vec![
                Entry::directory("usr/lib"),
                Entry::symlink("lib", "usr/lib"),
                file("lib/x"),
            ]],
        )
        .has(&[("usr/lib/x", "file 644 0:0 x"), ("lib", "link usr/lib")]),
        case(
            "a file through an absolute symbolic link",
            [vec![
                Entry::directory("run"),
                Entry::directory("var"),
                Entry::symlink("var/run", "/run"),
                file("var/run/pid"),
            ]],
        )
        .has(&[("run/pid", "file 644 0:0 x")]),
        case(
            "a symbolic link out of the image as a parent",
            [vec![
                Entry::symlink("l", "../../../../etc"),
                file("l/tucano-test"),
            ]],
        )
        .has(&[("etc/tucano-test", "absent")])
        .refused("malformed", "l/tucano-test"),
        case(
            "a file in place of a symbolic link",
            [vec![
                file("f"),
                Entry::symlink("l", "f"),
                Entry::file("l", "new"),
            ]],
        )
        .has(&[("l", "file 644 0:0 new"), ("f", "file 644 0:0 x")]),
        case(
            "a directory in place of a symbolic link",
            [
                vec![Entry::directory("t"), Entry::symlink("l", "t")],
                vec![Entry::directory("l").mode(0o700), file("l/x")],
            ],
        )
        .has(&[("l", "dir 700 0:0"), ("t/x", "absent")]),
        case(
            "a long symbolic link",
            [vec![Entry::symlink("l", &"t/".repeat(2000))]],
        ),
        case(
            "a set-user-ID program with two names",
            [vec![
                Entry::file("su", "x").mode(0o4755),
                Entry::hardlink("sudo", "su"),
            ]],
        )
        .has(&[("su", "file 4755 0:0 x"), ("sudo", "file 4755 0:0 x")]),
        case(
            "a file below a device",
            [vec![
                Entry::new(
                    "d",
                    tucano_image_builder::Kind::CharDevice { major: 1, minor: 3 },
                ),
                file("d/x"),
            ]],
        )
        .refused("malformed", "d/x"),
    ]
}
