//! Opening and creating repositories: a storage that fails never has a second one.

use std::fs;

use tucano_backup::{Class, List, Operation, Secret};

use crate::support::{Asking, PASSWORD, Place};

fn fails(asking: &Asking) -> tucano_backup::Failure {
    asking
        .run(Operation::List(List::default()))
        .expect_err("it cannot be opened")
}

#[test]
fn a_repository_is_created_once() {
    let place = Place::new();
    assert_eq!(fails(&place.asking).class, Class::RepositoryAbsent);
    let first = place.asking.init().expect("a repository");
    let second = place.asking.init().expect("the same");
    assert!(first.created && !second.created && first.id == second.id);
    assert_eq!(
        fs::read_dir(place.path().join("keys"))
            .expect("keys")
            .count(),
        1
    );
}

#[test]
fn a_wrong_password_is_told() {
    let mut place = Place::initialised();
    place.asking.repository.password = Secret::new("another password");
    let failure = fails(&place.asking);
    assert_eq!(failure.class, Class::WrongPassword);
    assert!(failure.message.contains("file:///"), "{failure}");
    assert!(!failure.message.contains("another password"), "{failure}");
    assert_eq!(
        place.asking.init().expect_err("it is there").class,
        Class::WrongPassword
    );
}

#[test]
fn the_rest_of_a_repository_is_not_overwritten() {
    let place = Place::initialised();
    let config = place.path().join("config");
    let content = fs::read(&config).expect("a configuration");

    // The configuration is lost, or hidden.
    fs::remove_file(&config).expect("removed");
    assert_eq!(
        place.asking.init().expect_err("the rest is there").class,
        Class::Occupied
    );
    assert_eq!(fails(&place.asking).class, Class::Occupied);
    assert!(!config.exists());
    assert_eq!(
        fs::read_dir(place.path().join("keys"))
            .expect("keys")
            .count(),
        1
    );

    // It is something else.
    for garbage in [&b""[..], b"garbage", &content[..content.len() - 1]] {
        fs::write(&config, garbage).expect("a configuration");
        assert_eq!(fails(&place.asking).class, Class::Damaged);
        assert_eq!(
            place.asking.init().expect_err("it is there").class,
            Class::Damaged
        );
        assert_eq!(fs::read(&config).expect("a configuration"), garbage);
    }

    // The keys are lost.
    fs::write(&config, &content).expect("a configuration");
    place.asking.init().expect("it is there");
    fs::remove_dir_all(place.path().join("keys")).expect("removed");
    assert_eq!(
        place.asking.init().expect_err("no keys").class,
        Class::Damaged
    );
}

#[test]
fn other_files_are_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path()).expect("a directory");
    fs::write(place.path().join("letter"), b"dear").expect("a file");
    assert_eq!(
        place.asking.init().expect_err("it is in use").class,
        Class::Occupied
    );
    assert_eq!(fs::read_dir(place.path()).expect("a directory").count(), 1);
}

#[test]
fn a_file_system_that_is_not_mounted_has_no_repository() {
    let mut place = Place::new();
    place.asking.repository.location.push_str("/deeper/still");
    let failure = place.asking.init().expect_err("no parent");
    assert_eq!(failure.class, Class::Unreachable, "{failure}");
    assert!(!place.path().exists());
}

#[test]
fn another_repository_is_refused() {
    let mut place = Place::initialised();
    place.asking.repository.expected_id = Some("0".repeat(64));
    assert_eq!(fails(&place.asking).class, Class::Occupied);
    // A repository that is known, and not there, is not created again.
    let mut place = Place::new();
    place.asking.repository.expected_id = Some("0".repeat(64));
    assert_eq!(
        place.asking.init().expect_err("not there").class,
        Class::RepositoryAbsent
    );
    assert!(!place.path().exists());
}

#[test]
fn bad_requests_are_told() {
    let mut place = Place::new();
    for location in [
        "",
        "/srv",
        "ftp://host/",
        "file://relative",
        "s3://",
        "s3:///prefix",
    ] {
        place.asking.repository.location = location.to_owned();
        assert_eq!(fails(&place.asking).class, Class::BadRequest, "{location}");
    }
    let mut place = Place::new();
    place.asking.limits.compression = 23;
    assert_eq!(fails(&place.asking).class, Class::BadRequest);
    let mut place = Place::new();
    place.asking.repository.password = Secret::new("");
    assert_eq!(fails(&place.asking).class, Class::BadRequest);
    assert_ne!(PASSWORD, "");
}

#[test]
fn what_is_no_request_is_told() {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    for input in [
        "",
        "{}\n",
        "no line",
        "{\"repository\": {\"password\": \"hidden\", \"x\": 1}}\n",
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tucano_backup"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("standard input");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("the end");
        assert_eq!(output.status.code(), Some(2), "{input}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains("bad_request") && !text.contains("hidden"),
            "{text}"
        );
    }
}
