use super::*;
use serde_json::json;

fn descriptor(media_type: &str, n: u8) -> Value {
    let digest = format!("sha256:{}", format!("{n:02x}").repeat(32));
    json!({"mediaType": media_type, "size": n, "digest": digest})
}

fn image() -> Value {
    let config = descriptor("application/vnd.oci.image.config.v1+json", 1);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 2);
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]})
}

fn read(manifest: &Value, content_type: Option<&str>) -> Result<Manifest, Error> {
    Manifest::parse(&serde_json::to_vec(manifest).unwrap(), content_type)
}

#[test]
fn an_image_refers_to_blobs_and_an_index_to_manifests() {
    let mut manifest = image();
    let foreign = descriptor(FOREIGN[0], 3);
    manifest["layers"].as_array_mut().unwrap().push(foreign);
    manifest["subject"] = descriptor(OCI_MANIFEST, 9);
    let read_image = read(&manifest, Some(OCI_MANIFEST)).unwrap();
    let sizes: Vec<u64> = read_image.targets.iter().map(|it| it.bytes).collect();
    assert_eq!(sizes, [2, 1], "foreign layers are not pushed");
    assert!(read_image.subject.is_some());
    assert_eq!(
        read_image.artifact_type.unwrap(),
        "application/vnd.oci.image.config.v1+json"
    );

    let index = json!({"schemaVersion": 2, "manifests": [descriptor(DOCKER_MANIFEST, 4)]});
    let index = read(
        &index,
        Some("application/vnd.oci.image.index.v1+json; charset=utf-8"),
    );
    let index = index.unwrap();
    assert!(index.targets[0].is_manifest && index.artifact_type.is_none());
}

#[test]
fn one_type_suffices_and_two_must_agree() {
    assert!(read(&image(), None).is_ok());
    let mut silent = image();
    silent.as_object_mut().unwrap().remove("mediaType");
    assert!(read(&silent, Some(OCI_MANIFEST)).is_ok());
    for (manifest, content_type, part) in [
        (&silent, None, "neither"),
        (&image(), Some(DOCKER_MANIFEST), "its mediaType"),
        (&silent, Some("text/plain"), "unknown"),
        (&silent, Some(OCI_INDEX), "does not match"),
    ] {
        let error = read(manifest, content_type).unwrap_err();
        assert_eq!(error.code(), "MANIFEST_INVALID");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn an_ambiguous_document_is_refused() {
    let mut both = image();
    both["manifests"] = json!([]);
    assert!(read(&both, None).is_err());
    let twice = serde_json::to_string(&image())
        .unwrap()
        .replacen('{', "{\"layers\":[],", 1);
    let error = Manifest::parse(twice.as_bytes(), Some(OCI_MANIFEST)).unwrap_err();
    assert!(error.to_string().contains("duplicate"), "{error}");
    let mut old = image();
    old["schemaVersion"] = json!(1);
    assert!(
        read(&old, None)
            .unwrap_err()
            .to_string()
            .contains("schemaVersion")
    );
    let mut other = image();
    other["config"]["digest"] = json!(format!("sha384:{}", "0".repeat(96)));
    assert_eq!(read(&other, None).unwrap_err().code(), "DIGEST_INVALID");
}
