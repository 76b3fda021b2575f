//! Images made by umoci, skopeo and buildah, and the view of overlayfs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use common::{Place, image_of, platform};
use tucano_image_builder::Entry;
use tucano_oci_image::{Error, Image};
use tucano_testkit::{ROOT, needs, tool};

/// Runs a shell script in a directory.
fn run(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{talk}");
    String::from_utf8(output.stdout).unwrap()
}

fn import(place: &Place, archive: &Path) -> Result<Image, Error> {
    place
        .store
        .import_archive(File::open(archive).unwrap(), &platform())
}

/// An image by umoci of three layers with every kind of change.
const UMOCI: &str = "
    umoci init --layout layout
    umoci new --image layout:app
    mkdir first second
    echo one > first/one; echo two > first/two; mkdir first/sub; echo three > first/sub/three
    chmod 4755 first/one; chown 12:34 first/two; ln -s one first/link; ln first/one first/hard
    mkfifo first/fifo
    umoci insert --image layout:app first /data
    umoci insert --image layout:app --whiteout /data/two
    echo four > second/four
    umoci insert --image layout:app --opaque second /data/sub
    umoci config --image layout:app --config.entrypoint /data/one --config.env A=B
";

fn check_umocis(place: &Place, image: &Image) {
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(
        config.entrypoint().as_deref(),
        Some(&["/data/one".to_owned()][..])
    );
    let layers = place.unpack(image).unwrap();
    assert_eq!(layers.len(), 3);
    let merged = merged(
        &layers
            .iter()
            .rev()
            .map(|it| it.to_str().unwrap())
            .collect::<Vec<_>>(),
    );
    assert_eq!(
        merged,
        "./data d 755 0:0\n./data/fifo p 644 0:0\n./data/hard f 4755 0:0\n./data/link l 777 0:0\n\
         ./data/one f 4755 0:0\n./data/sub d 755 0:0\n./data/sub/four f 644 0:0\n"
    );
    assert_eq!(place.unfinished(), 0);
}

/// The view of overlayfs on these layers, uppermost first: path, type, mode and owner.
fn merged(lower: &[&str]) -> String {
    let script = format!(
        "mount -t tmpfs none /mnt && mkdir /mnt/empty /mnt/merged
         mount -t overlay none -o lowerdir={}:/mnt/empty /mnt/merged
         cd /mnt/merged && find . -mindepth 1 -printf '%p %y %m %U:%G\\n' | sort",
        lower.join(":")
    );
    // The mounts vanish with the namespace.
    run(
        Path::new("/"),
        &format!(
            "unshare --mount --propagation private sh -euc '{}'",
            script.replace('\'', "'\\''")
        ),
    )
}

#[test]
fn a_layout_of_umoci_in_a_tar() {
    if !needs(&[ROOT, tool("umoci"), tool("tar"), tool("unshare")]) {
        return;
    }
    let place = Place::new();
    let directory = place.directory.path();
    run(
        directory,
        &format!("umask 022; {UMOCI} tar -cf image.tar -C layout ."),
    );
    let image = import(&place, &directory.join("image.tar")).unwrap();
    check_umocis(&place, &image);
    run(directory, "gzip image.tar");
    assert_eq!(
        import(&place, &directory.join("image.tar.gz"))
            .unwrap()
            .digest,
        image.digest
    );
}

#[test]
fn an_archive_of_skopeo() {
    if !needs(&[ROOT, tool("umoci"), tool("skopeo"), tool("unshare")]) {
        return;
    }
    let place = Place::new();
    let directory = place.directory.path();
    let copy = "skopeo --insecure-policy copy --quiet oci:layout:app oci-archive:image.tar:app";
    run(directory, &format!("umask 022; {UMOCI} {copy}"));
    check_umocis(
        &place,
        &import(&place, &directory.join("image.tar")).unwrap(),
    );
    // As a Docker archive with uncompressed layers.
    run(
        directory,
        "skopeo --insecure-policy copy --quiet oci:layout:app docker-archive:docker.tar:app:1 && gzip docker.tar",
    );
    let docker = Place::new();
    let image = import(&docker, &directory.join("docker.tar.gz")).unwrap();
    check_umocis(&docker, &image);
    // With zstd by skopeo.
    run(
        directory,
        "skopeo --insecure-policy copy --quiet --dest-compress-format zstd --dest-compress \
         oci:layout:app oci:zstd:app && tar -cf zstd.tar -C zstd .",
    );
    let zstd = Place::new();
    check_umocis(&zstd, &import(&zstd, &directory.join("zstd.tar")).unwrap());
}

#[test]
fn archives_of_buildah() {
    if !needs(&[ROOT, tool("buildah")]) {
        return;
    }
    let place = Place::new();
    let directory = place.directory.path();
    // The store is in the test's own directory, and no container is run.
    let script = "
        b() { buildah --root $PWD/root --runroot $PWD/run --storage-driver vfs \"$@\"; }
        echo content > file
        container=$(b from scratch)
        b copy --quiet $container file /opt/file
        b config --entrypoint '[\"/opt/file\"]' --env A=B --user 1000 $container
        b commit --quiet --signature-policy policy.json $container oci-archive:oci.tar:app
        b commit --quiet --signature-policy policy.json --format docker $container docker-archive:docker.tar:app
        b rm --all > /dev/null
    ";
    fs::write(
        directory.join("policy.json"),
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    run(directory, script);
    let image = import(&place, &directory.join("oci.tar")).unwrap();
    let layers = place.unpack(&image).unwrap();
    assert_eq!(
        fs::read_to_string(layers[0].join("opt/file")).unwrap(),
        "content\n"
    );
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.user().as_deref(), Some("1000"));
    let docker = import(&place, &directory.join("docker.tar")).unwrap();
    let layers = place.unpack(&docker).unwrap();
    assert!(layers[0].join("opt/file").is_file());
    let config = docker.config.config().as_ref().unwrap();
    assert_eq!(config.user().as_deref(), Some("1000"));
    assert_eq!(place.unfinished(), 0);
}

#[test]
fn a_directory_over_a_lower_link_replaces_it() {
    if !needs(&[ROOT, tool("unshare")]) {
        return;
    }
    let place = Place::new();
    let lower = [
        Entry::file("usr/lib/a", ""),
        Entry::symlink("lib", "usr/lib"),
    ];
    let upper = [Entry::file("lib/b", "")];
    let image = place.import(&image_of(&[&lower, &upper])).unwrap();
    let layers = place.unpack(&image).unwrap();
    let merged = merged(&[layers[1].to_str().unwrap(), layers[0].to_str().unwrap()]);
    assert!(
        merged.contains("./lib d ") && merged.contains("./lib/b f "),
        "{merged}"
    );
    assert!(
        !merged.contains("./usr/lib/b"),
        "nothing is written through a lower layer's link: {merged}"
    );
}

#[test]
fn an_overlay_of_sixty_layers_is_mounted() {
    if !needs(&[ROOT, tool("unshare")]) {
        return;
    }
    let place = Place::new();
    let files: Vec<[Entry; 1]> = (0..60)
        .map(|number| [Entry::file(&format!("f{number:02}"), "")])
        .collect();
    let layers: Vec<&[Entry]> = files.iter().map(|layer| &layer[..]).collect();
    let image = place.import(&image_of(&layers)).unwrap();
    let unpacked = place
        .layers
        .unpack_all(&place.store, &image.layers())
        .unwrap();
    // By short names, as in the runtime: mount options are limited to one page.
    let names: Vec<String> = (0..60).map(|number| format!("/mnt/{number}")).collect();
    let binds: String = names
        .iter()
        .zip(&unpacked)
        .map(|(name, layer)| format!("mkdir {name} && mount --bind {} {name}\n", layer.display()))
        .collect();
    let script = format!(
        "mount -t tmpfs none /mnt\n{binds}mkdir /mnt/merged
         mount -t overlay none -o lowerdir={} /mnt/merged && ls /mnt/merged | wc -l",
        names.join(":")
    );
    let shown = run(
        Path::new("/"),
        &format!("unshare --mount --propagation private sh -euc '{script}'"),
    );
    assert_eq!(shown.trim(), "60");
}

#[test]
fn overlayfs_applies_whiteouts() {
    if !needs(&[ROOT, tool("unshare")]) {
        return;
    }
    let place = Place::new();
    let lower =
        ["a/x", "a/y", "b/x", "c/x", "e/x", "f/x", "g"].map(|path| Entry::file(path, "low"));
    let upper = [
        Entry::file("a/.wh.x", ""),
        Entry::file(".wh.b", ""),
        Entry::file("c/.wh..wh..opq", ""),
        Entry::file("c/new", ""),
        Entry::file(".wh.e", ""),
        Entry::file("e/new", ""),
        Entry::file("f", "a file in place of a directory"),
        Entry::file("g/new", "a directory in place of a file"),
        Entry::file(".wh.never-there", ""),
    ];
    let image = place.import(&image_of(&[&lower, &upper])).unwrap();
    let layers = place.unpack(&image).unwrap();
    let merged = merged(&[layers[1].to_str().unwrap(), layers[0].to_str().unwrap()]);
    let paths: Vec<&str> = merged
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "./a", "./a/y", "./c", "./c/new", "./e", "./e/new", "./f", "./g", "./g/new"
        ]
    );
}
