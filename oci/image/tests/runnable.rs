//! What a deploy finds out before a process is started.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Place;
use serde_json::{Value, json};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_oci_image::{Error, Image, Overrides};

const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::relative:\nshort:x:7\nbad:x:-1:0::/:\n";

fn elf(machine: u8) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[18] = machine;
    head
}

fn own_machine() -> u8 {
    match std::env::consts::ARCH {
        "aarch64" => 183,
        _ => 62,
    }
}

/// Checks an image with some programs and this configuration.
fn check(config: &Value, overrides: &Overrides) -> Result<Vec<String>, Error> {
    let (place, image) = stored(config);
    place.store.check_runnable(&image, overrides)
}

/// An image with some programs and this configuration.
fn stored(config: &Value) -> (Place, Image) {
    let program = |path: &str, content: &[u8]| Entry::file(path, content).mode(0o755);
    let base = [
        Entry::file("etc/passwd", PASSWD),
        Entry::file("etc/group", "root:x:0:\nweb:x:33:\n"),
        program("usr/bin/app", &elf(own_machine())),
        program("usr/bin/removed", b"x"),
        program("opt/foreign", &elf(22)),
        program("opt/script", b"#!/usr/bin/app -x\n"),
        program("opt/orphan", b"#!/bin/bash\n"),
        Entry::file("opt/text", "x"),
        Entry::symlink("bin", "usr/bin"),
        Entry::symlink("opt/link", "../bin/app"),
    ];
    let top = [
        Entry::file("usr/bin/.wh.removed", ""),
        Entry::directory("srv"),
        Entry::file("srv/.wh..wh..opq", ""),
        Entry::directory("srv/deep"),
        program("srv/deep/app", b"x"),
    ];
    let config = config.clone();
    let layout = ImageSpec::new("x")
        .layer(Layer::new(&base, Compression::Gzip).unwrap())
        .layer(Layer::new(&top, Compression::Zstd).unwrap())
        .edit_config(move |whole| whole["config"] = config.clone())
        .build()
        .unwrap();
    let place = Place::new();
    let image = place.import(&layout).unwrap();
    (place, image)
}

fn none() -> Overrides {
    Overrides::default()
}

#[test]
fn programs_are_found_as_a_container_finds_them() {
    for (config, is_found) in [
        (json!({"Entrypoint": ["/usr/bin/app"]}), true),
        (json!({"Cmd": ["/bin/app"]}), true),
        (json!({"Cmd": ["app"]}), true),
        (json!({"Cmd": ["./app"], "WorkingDir": "/usr/bin"}), true),
        (
            json!({"Cmd": ["link"], "Env": ["PATH=/nowhere:/opt"]}),
            true,
        ),
        (json!({"Cmd": ["/opt/script"]}), true),
        (json!({"Cmd": ["/srv/deep/app"]}), true),
        (json!({"Cmd": ["/proc/self/exe"]}), true),
        (json!({"Cmd": ["link"]}), false),
        (json!({"Cmd": ["/usr/bin/removed"]}), false),
        (json!({"Cmd": ["/opt/text"]}), false),
        (json!({"Cmd": ["/opt"]}), false),
        (json!({"Cmd": ["./app"]}), false),
    ] {
        let checked = check(&config, &none());
        assert_eq!(checked.is_ok(), is_found, "{config}: {checked:?}");
    }
}

#[test]
fn a_program_may_be_in_what_is_mounted() {
    let mounting = Overrides {
        mounted: vec!["/tools".to_owned(), "/usr/bin".to_owned()],
        ..none()
    };
    for (config, is_found) in [
        (json!({"Cmd": ["/tools/bin/x"]}), true),
        (json!({"Cmd": ["x"], "Env": ["PATH=/opt:/tools"]}), true),
        (json!({"Cmd": ["/usr/bin/removed"]}), true),
        (json!({"Cmd": ["/opt/script"]}), true),
        (json!({"Cmd": ["/toolsmith"]}), false),
        (json!({"Cmd": ["/opt/text"]}), false),
        // What the image has first in the path is still looked at.
        (
            json!({"Cmd": ["orphan"], "Env": ["PATH=/opt:/tools"]}),
            false,
        ),
    ] {
        let checked = check(&config, &mounting);
        assert_eq!(checked.is_ok(), is_found, "{config}: {checked:?}");
    }
}

#[test]
fn an_image_without_a_program_can_be_mounted() {
    let file = [Entry::file("high", "x").owner(70_000, 0)];
    let layout = ImageSpec::new("x")
        .layer(Layer::new(&file, Compression::Gzip).unwrap())
        .edit_config(|whole| whole["config"] = json!({}))
        .build()
        .unwrap();
    let place = Place::new();
    let image = place.import(&layout).unwrap();
    assert!(place.store.check_runnable(&image, &none()).is_err());
    let warnings = place.store.check_mountable(&image).unwrap();
    assert!(
        warnings[0].starts_with("1 entries of the image"),
        "{warnings:?}"
    );
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let many = "x".repeat(100_000);
    for (config, reason) in [
        (json!({}), "neither Entrypoint nor Cmd"),
        (json!({"Cmd": []}), "neither Entrypoint nor Cmd"),
        (json!({"Cmd": ["/none"]}), "no executable file \"/none\""),
        (json!({"Cmd": ["/opt/foreign"]}), "the ELF machine 22"),
        (json!({"Cmd": ["/opt/orphan"]}), "script for /bin/bash"),
        (json!({"Cmd": ["app"], "User": "who"}), "no user \"who\""),
        (json!({"Cmd": ["app"], "User": "bad"}), "no user \"bad\""),
        (
            json!({"Cmd": ["app"], "User": "app:who"}),
            "no group \"who\"",
        ),
        (json!({"Cmd": ["app"], "User": "65536"}), "above 65535"),
        (
            json!({"Cmd": ["app"], "User": "0:4294967295"}),
            "above 65535",
        ),
        (json!({"Cmd": ["app"], "User": many}), "512 is the limit"),
        (
            json!({"Cmd": ["app"], "StopSignal": "SIGNONSENSE"}),
            "StopSignal",
        ),
    ] {
        let error = check(&config, &none()).unwrap_err();
        assert_eq!(error.code(), "cannot_run", "{error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn users_and_signals_are_taken_in_every_form() {
    for user in [
        "", "app", "0", "1000:", "app:", ":1000", "0:", "app:web", "7:33", "short", "1234",
    ] {
        let config = json!({"Cmd": ["app"], "User": user, "StopSignal": "sigrtmin+3"});
        check(&config, &none()).unwrap_or_else(|error| panic!("{user:?}: {error}"));
    }
}

#[test]
fn the_service_overrides_the_image() {
    let config = json!({"Cmd": ["/none"], "User": "who"});
    let overrides = Overrides {
        args: Some(vec!["script".to_owned()]),
        user: Some("app".to_owned()),
        path: Some("/opt".to_owned()),
        mounted: Vec::new(),
        ..Overrides::default()
    };
    assert!(check(&config, &overrides).is_ok());
}

#[test]
fn a_health_check_whose_program_is_missing_is_told() {
    let with = |test: Value| {
        let config = json!({"Cmd": ["app"], "Healthcheck": {"Test": test}});
        let (place, image) = stored(&config);
        assert!(check(&config, &none()).unwrap().is_empty());
        place.store.healthcheck_obstacle(&image, &none()).unwrap()
    };
    assert_eq!(with(json!(["CMD", "app", "--check"])), None);
    assert_eq!(with(json!(["NONE"])), None);
    let why = with(json!(["CMD", "absent"])).unwrap();
    assert!(why.contains("no executable file \"absent\""), "{why}");
    let why = with(json!(["CMD-SHELL", "app || exit 1"])).unwrap();
    assert!(why.contains("/bin/sh"), "{why}");
}
