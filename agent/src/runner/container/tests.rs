use std::os::unix::fs::PermissionsExt;

use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};
use tucano_api::{
    ids::{Digest, Revision},
    settings::parse,
};

use super::*;

fn process(more: &str) -> DesiredProcess {
    let text = format!("name = \"hello\"\nconcurrency = 1\nport = 8080\n{more}");
    DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: "hello-12".parse().unwrap(),
        revision: Revision(3),
        image: Digest::sha256(&"0".repeat(64)).unwrap(),
        config: parse("hello.toml", &text).unwrap(),
        slot: None,
        volumes: Vec::new(),
        run: None,
    }
}

fn image() -> ImageConfiguration {
    let config = ConfigBuilder::default()
        .entrypoint(vec!["/hello".to_owned()])
        .cmd(vec!["--quiet".to_owned()])
        .env(vec![
            "A=image".to_owned(),
            "B=image".to_owned(),
            "PORT=1".to_owned(),
        ])
        .build()
        .unwrap();
    let mut image = ImageConfigurationBuilder::default()
        .rootfs(
            oci_spec::image::RootFsBuilder::default()
                .typ("layers")
                .diff_ids(Vec::new())
                .build()
                .unwrap(),
        )
        .history(Vec::new())
        .build()
        .unwrap();
    image.set_config(Some(config));
    image
}

#[test]
fn the_services_arguments_replace_those_of_the_image() {
    assert_eq!(command(&image(), &process("")), ["/hello", "--quiet"]);
    assert_eq!(
        command(&image(), &process("args = [\"-v\"]")),
        ["/hello", "-v"]
    );
    assert_eq!(command(&image(), &process("args = []")), ["/hello"]);
}

#[test]
fn the_environment_identifies_the_process_and_services_cannot_override_it() {
    let process = process("env = { A = \"service\", TUCANO_NODE = \"other\" }");
    let node = "w1".parse().unwrap();
    let environment = environment(
        &image(),
        Identity {
            needs: &[],
            process: &process,
            node: &node,
        },
    );
    for expected in [
        "A=service",
        "B=image",
        "PORT=8080",
        "TUCANO_SERVICE=hello",
        "TUCANO_REVISION=3",
        "TUCANO_PROCESS=hello-12",
        "TUCANO_NODE=w1",
    ] {
        assert!(
            environment.contains(&expected.to_owned()),
            "{expected}: {environment:?}"
        );
    }
    assert_eq!(
        environment
            .iter()
            .filter(|v| v.starts_with("PORT="))
            .count(),
        1
    );
}

#[test]
fn a_process_learns_where_the_services_are_that_it_needs() {
    let process = process("needs = [\"my-db\"]\nenv = { MY_DB_PORT = \"own\" }");
    let needed: NamedService = serde_json::from_value(serde_json::json!({
        "service": "my-db", "address": "100.80.0.1", "endpoints": [],
        "ports": [
            { "name": "admin", "port": 9000, "protocol": "tcp" },
            { "name": "http", "port": 5432, "protocol": "http" },
        ],
    }))
    .unwrap();
    assert!(where_it_is(&needed).contains(&("MY_DB_PORT".to_owned(), "5432".to_owned())));
    let environment = environment(
        &image(),
        Identity {
            process: &process,
            node: &"w1".parse().unwrap(),
            needs: &[Arc::new(needed)],
        },
    );
    for expected in [
        "MY_DB_HOST=my-db.internal",
        "MY_DB_PORT=own",
        "MY_DB_PORT_ADMIN=9000",
        "MY_DB_PORT_HTTP=5432",
    ] {
        assert!(
            environment.contains(&expected.to_owned()),
            "{environment:?}"
        );
    }
}

#[test]
fn files_are_written_anew_with_their_modes() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("files");
    let own = rustix::process::getuid().as_raw();
    let texts = |more: &str| process(more).config.file;
    let two = texts(
        "[[file]]\npath = \"/a\"\ncontent = \"1\"\nmode = \"0400\"\n[[file]]\npath = \"/b\"\ncontent = \"2\"",
    );
    for file in [&two, &two] {
        // The ids of this user, who need not be root.
        let owned: Vec<ConfigFile> = file
            .iter()
            .map(|file| ConfigFile {
                uid: 0,
                gid: rustix::process::getgid().as_raw().saturating_sub(own),
                ..file.clone()
            })
            .collect();
        write_files(&files, &owned, own).unwrap();
        assert_eq!(fs::read_to_string(files.join("1")).unwrap(), "2");
        let mode = fs::metadata(files.join("0")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
    }
    write_files(&files, &[], own).unwrap();
    assert!(!files.exists());
}
