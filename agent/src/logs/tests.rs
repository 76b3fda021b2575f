use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn links_and_fifos_in_place_of_a_log_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    let log = home.path().join("stdout.log");
    symlink(&secret, &log).unwrap();
    let part = Part {
        selection: Selection::Stdout,
        bounds: Bounds {
            lines: 10,
            bytes: 100,
        },
        since: None,
    };
    past(home.path(), part).unwrap_err();
    fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    past(home.path(), part).unwrap_err();
    fs::remove_file(&log).unwrap();
    fs::rename(&secret, &log).unwrap();
    assert_eq!(past(home.path(), part).unwrap()[0].text, b"secret");
    // Nor in place of the index: the output is shown without it.
    symlink(&log, home.path().join("output.idx")).unwrap();
    assert_eq!(past(home.path(), part).unwrap()[0].text, b"secret");
}
