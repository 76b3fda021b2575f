//! Manifests and configurations, as Docker, kaniko, ko, jib, nix and scripts write them.

use serde_json::{Value, json};
use tucano_image_builder::Entry;

use crate::kit::{Case, case};

fn with_config(name: &'static str, change: fn(&mut Value)) -> Case {
    case(name, [vec![Entry::file("f", "x")]])
        .config(change)
        .has(&[("f", "file 644 0:0 x")])
}

fn with_manifest(name: &'static str, change: fn(&mut Value)) -> Case {
    case(name, [vec![Entry::file("f", "x")]])
        .manifest(change)
        .has(&[("f", "file 644 0:0 x")])
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        with_config("no history", |config| {
            config.as_object_mut().unwrap().remove("history");
        }),
        with_config("no configuration of the container", |config| {
            config.as_object_mut().unwrap().remove("config");
        }),
        with_config("nulls in place of lists and maps", |config| {
            config["config"] = json!({"Env": null, "Cmd": null, "Entrypoint": null, "Labels": null,
                "Volumes": null, "ExposedPorts": null, "OnBuild": null, "User": "", "WorkingDir": ""});
        }),
        with_config("a command that is a string", |config| {
            config["config"]["Cmd"] = json!("/bin/app");
            config["config"]["Entrypoint"] = json!("");
        }),
        with_config("keys of old Docker versions", |config| {
            config["container_config"] =
                json!({"Hostname": "abc", "Cmd": ["/bin/sh", "-c", "#(nop) "]});
            config["docker_version"] = json!("1.10.3");
            config["id"] = json!("0123");
            config["throwaway"] = json!(true);
            config["config"]["ArgsEscaped"] = json!(true);
            config["config"]["AttachStdout"] = json!(false);
        }),
        with_config("a health check and a shell", |config| {
            config["config"]["Healthcheck"] =
                json!({"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000_u64});
            config["config"]["Shell"] = json!(["/bin/bash", "-c"]);
            config["config"]["StopSignal"] = json!("SIGQUIT");
            config["config"]["Volumes"] = json!({"/data": {}});
        }),
        with_config("no time of creation, or the year 1", |config| {
            config["created"] = json!("0001-01-01T00:00:00Z");
        }),
        with_config("no platform", |config| {
            config.as_object_mut().unwrap().remove("os");
            config.as_object_mut().unwrap().remove("architecture");
        }),
        with_config("an empty platform", |config| {
            config["os"] = json!("");
            config["architecture"] = json!("");
        }),
        with_config("an architecture by its name in the kernel", |config| {
            let name = std::env::consts::ARCH;
            config["architecture"] = json!(name);
            config["os"] = json!("Linux");
            config["variant"] = json!("v8");
        }),
        with_config("history of empty layers", |config| {
            config["history"] = json!([{"created_by": "a", "empty_layer": true}, {"created_by": "b"},
                {"comment": "buildkit.dockerfile.v0", "empty_layer": true}]);
        }),
        with_config("a platform that no node has", |config| {
            config["architecture"] = json!("s390x");
        })
        .refused("wrong_architecture", "the image is for linux/s390x")
        .because("the nodes cannot run it"),
        with_manifest("annotations and an artifact type", |manifest| {
            manifest["annotations"] =
                json!({"org.opencontainers.image.created": "2020-01-01T00:00:00Z"});
            manifest["artifactType"] = json!("application/vnd.example");
            manifest["layers"][0]["annotations"] =
                json!({"containerd.io/snapshot/stargz/toc.digest": "x"});
        }),
        with_manifest("no media type of its own", |manifest| {
            manifest.as_object_mut().unwrap().remove("mediaType");
        }),
        with_manifest("Docker's media types", |manifest| {
            manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
            manifest["config"]["mediaType"] =
                json!("application/vnd.docker.container.image.v1+json");
            manifest["layers"][0]["mediaType"] =
                json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        }),
        with_manifest("a digest of MD5", |manifest| {
            manifest["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e");
        })
        .refused("unsupported", "md5"),
        case(
            "one layer twice",
            [
                vec![Entry::file("f", "x")],
                vec![Entry::file("g", "x")],
                vec![Entry::file("f", "x")],
            ],
        )
        .has(&[("f", "file 644 0:0 x"), ("g", "file 644 0:0 x")]),
    ]
}
