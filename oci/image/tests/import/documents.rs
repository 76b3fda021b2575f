//! Which documents are accepted.

use std::fs;

use serde_json::{Value, json};
use tucano_image_builder::{
    Compression, Entry, ImageSpec, Layer, Layout,
    layout::{archive_of, blob_path},
};

use crate::common::{Place, hello, platform};
use crate::{image, refused, together, with_index};

#[test]
fn a_blob_with_another_digest_is_refused() {
    let mut layout = hello();
    let path = blob_path(&layout.manifest_digest);
    layout.files.get_mut(&path).unwrap()[5] ^= 1;
    let (code, text) = refused(&Place::new(), &layout.archive().unwrap());
    assert_eq!(code, "digest_mismatch");
    assert!(text.contains(&layout.manifest_digest), "{text}");
}

#[test]
fn a_missing_blob_is_named() {
    let layout = hello();
    for (path, code) in layout.files.keys().map(|path| match path.as_str() {
        "oci-layout" | "index.json" => (path, "malformed"),
        _ => (path, "blob_missing"),
    }) {
        let mut cut = layout.clone();
        cut.files.remove(path);
        let (found, text) = refused(&Place::new(), &cut.archive().unwrap());
        assert_eq!(found, code, "{path}: {text}");
        let name = path.rsplit('/').next().unwrap();
        assert!(text.contains(name), "{path}: {text}");
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    for part in ["/layers/0/size", "/config/size"] {
        let layout = ImageSpec::new("x")
            .layer(layer.clone())
            .edit_manifest(move |manifest| *manifest.pointer_mut(part).unwrap() = 7.into());
        let archive = layout.build().unwrap().archive().unwrap();
        assert_eq!(
            refused(&Place::new(), &archive).0,
            "digest_mismatch",
            "{part}"
        );
    }
    let layout = with_index(hello(), |index| index["manifests"][0]["size"] = 7.into());
    assert_eq!(
        refused(&Place::new(), &layout.archive().unwrap()).0,
        "digest_mismatch"
    );
}

#[test]
fn inconsistent_documents_are_refused() {
    type Edit = fn(&mut Value);
    let manifests: [(&str, Edit); 6] = [
        ("malformed", |manifest| manifest["schemaVersion"] = 1.into()),
        ("malformed", |manifest| manifest["layers"] = json!([])),
        ("malformed", |manifest| {
            manifest["config"]["digest"] = "sha256:xyz".into()
        }),
        ("malformed", |manifest| manifest["layers"] = json!("none")),
        ("unsupported", |manifest| {
            manifest["layers"][0]["mediaType"] = "text/plain".into()
        }),
        ("unsupported", |manifest| {
            manifest["config"]["mediaType"] = "text/plain".into()
        }),
    ];
    let configs: [(&str, Edit); 5] = [
        ("malformed", |config| {
            config["rootfs"]["diff_ids"] = json!([])
        }),
        ("malformed", |config| {
            config["rootfs"]["diff_ids"] = json!(["nonsense"])
        }),
        ("malformed", |config| {
            config["rootfs"]["type"] = "tree".into()
        }),
        ("malformed", |config| *config = json!([])),
        ("wrong_architecture", |config| {
            config["architecture"] = "riscv64".into()
        }),
    ];
    let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
    let spec = || ImageSpec::new("x").layer(layer.clone());
    let manifests = manifests.map(|(code, edit)| (code, spec().edit_manifest(edit)));
    let configs = configs.map(|(code, edit)| (code, spec().edit_config(edit)));
    for (number, (code, spec)) in manifests.into_iter().chain(configs).enumerate() {
        let (found, text) = refused(&Place::new(), &spec.build().unwrap().archive().unwrap());
        assert_eq!(found, code, "case {number}: {text}");
    }
}

#[test]
fn the_layout_is_checked() {
    type Change = fn(&mut Layout);
    let cases: [(&str, Change); 6] = [
        ("unsupported", |layout| {
            layout.files.insert(
                "oci-layout".into(),
                br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec(),
            );
        }),
        ("malformed", |layout| {
            layout.files.insert("oci-layout".into(), b"{".to_vec());
        }),
        ("malformed", |layout| {
            layout.files.insert("index.json".into(), b"{}".to_vec());
        }),
        ("malformed", |layout| {
            layout.files.insert("blobs/sha256/short".into(), Vec::new());
        }),
        ("malformed", |layout| {
            layout.files.insert("../outside".into(), Vec::new());
        }),
        ("too_large", |layout| {
            layout
                .files
                .insert("index.json".into(), vec![b' '; 5 << 20]);
        }),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let mut layout = hello();
        change(&mut layout);
        let (found, text) = refused(&Place::new(), &layout.archive().unwrap());
        assert_eq!(found, code, "case {number}: {text}");
    }
}

#[test]
fn other_files_are_refused_with_advice() {
    for bytes in [&b""[..], b"x", b"hello, this is not a tar", &[0; 2048]] {
        assert_eq!(refused(&Place::new(), bytes).0, "malformed");
    }
    let (code, text) = refused(&Place::new(), &archive_of(&[("a", b"b")]).unwrap());
    assert_eq!(code, "malformed");
    assert!(
        text.contains("nor manifest.json") && text.contains("docker save"),
        "{text}"
    );
}

#[test]
fn non_distributable_layers_are_refused() {
    for name in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let layer = Layer::new(&[Entry::file("f", "x")], Compression::Gzip).unwrap();
        let image = ImageSpec::new("x")
            .layer(layer)
            .edit_manifest(move |manifest| manifest["layers"][0]["mediaType"] = name.into());
        let archive = image.build().unwrap().archive().unwrap();
        let (code, text) = refused(&Place::new(), &archive);
        assert_eq!(code, "unsupported");
        assert!(
            text.contains("foreign layer") && text.contains(name),
            "{text}"
        );
    }
}

#[test]
fn a_layout_directory_is_imported() {
    let layout = together(&[hello(), image("s390x", "big")]);
    let place = Place::new();
    let directory = place.directory.path().join("layout");
    layout.write_directory(&directory).unwrap();
    let import = |name| place.store.import_directory(&directory, &platform(), name);
    assert_eq!(
        import(None).unwrap().digest.to_string(),
        hello().manifest_digest
    );
    assert_eq!(
        (place.blobs(), place.unfinished()),
        (4, 0),
        "only the image's blobs"
    );
    assert_eq!(import(Some("nope")).unwrap_err().code(), "no_such_image");
    let other = Place::new();
    let import = || other.store.import_directory(&directory, &platform(), None);
    let blob = directory.join(blob_path(&hello().manifest_digest));
    let manifest = fs::read(&blob).unwrap();
    fs::write(&blob, manifest.to_ascii_uppercase()).unwrap();
    assert_eq!(import().unwrap_err().code(), "digest_mismatch");
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
    assert_eq!(
        import().unwrap_err().code(),
        "malformed",
        "links are not followed"
    );
    fs::remove_file(directory.join("index.json")).unwrap();
    let error = import().unwrap_err();
    assert!(
        error.to_string().contains("has no file index.json"),
        "{error}"
    );
    assert_eq!((other.blobs(), other.unfinished()), (0, 0));
}
