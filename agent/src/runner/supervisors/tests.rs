use std::os::unix::fs::PermissionsExt;

use super::*;

/// A pool whose supervisors are shell scripts.
fn pool_of(size: usize, line: &str) -> (tempfile::TempDir, Supervisors) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    write(&path, line);
    (directory, Supervisors::new(Arc::new(path), size))
}

/// Written by another process: a child that another test forks meanwhile would hold it open for writing (ETXTBSY).
fn write(path: &std::path::Path, line: &str) {
    let next = path.with_extension("next");
    let script = format!("printf '#!/bin/sh\\n%s\\n' '{line}' >{}", next.display());
    let written = std::process::Command::new("sh")
        .args(["-c", &script])
        .status();
    assert!(written.unwrap().success());
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// A shell redirects the standard input of background commands, so it is passed by another descriptor.
const STAYS: &str = "exec 3<&0; cat <&3 >/dev/null 2>&1 &";

fn ready(pool: &Supervisors) -> usize {
    pool.state().ready.len()
}

#[test]
fn an_enabled_pool_is_filled_to_its_size() {
    for size in [0, 1, 3] {
        let (_directory, pool) = pool_of(size, STAYS);
        pool.fill();
        assert_eq!(ready(&pool), 0, "it is disabled");
        pool.enable();
        pool.fill();
        assert_eq!(ready(&pool), size);
        assert_eq!(pool.take().is_some(), size > 0);
        pool.fill();
        assert_eq!(ready(&pool), size);
        pool.drain();
        pool.fill();
        assert_eq!(ready(&pool), 0, "it is disabled again");
    }
}

#[test]
fn supervisors_of_a_replaced_program_are_not_used() {
    let (directory, pool) = pool_of(2, STAYS);
    pool.enable();
    pool.fill();
    write(&directory.path().join("program"), STAYS);
    assert!(pool.take().is_none());
    assert_eq!(ready(&pool), 0);
    pool.fill();
    assert!(pool.take().is_some());
}

#[test]
fn ended_supervisors_are_not_used_and_a_failing_program_prepares_none() {
    let (_directory, pool) = pool_of(1, "exit 0");
    pool.enable();
    pool.fill();
    assert!(pool.take().is_none());
    let (_directory, pool) = pool_of(1, "exit 3");
    pool.enable();
    pool.fill();
    assert_eq!(ready(&pool), 0);
}
