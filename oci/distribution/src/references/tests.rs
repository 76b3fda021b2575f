use super::*;
use crate::manifest::Target;
use tucano_oci_image::digest_of;

const HOUR: Duration = Duration::from_secs(3600);

struct Place {
    _directory: tempfile::TempDir,
    references: References,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let references = References::open(&directory.path().join("r.sqlite3"), 1 << 30).unwrap();
        Self {
            _directory: directory,
            references,
        }
    }

    fn put(&mut self, which: &str, manifest: &Manifest) -> Result<(), Error> {
        self.put_with(which, manifest, &Limits::default())
    }

    fn put_with(&mut self, which: &str, manifest: &Manifest, limits: &Limits) -> Result<(), Error> {
        self.references
            .put_manifest(&name(), manifest, &which.parse().unwrap(), limits)
    }

    /// Makes every push two hours old.
    fn age(&mut self) {
        for table in ["blobs", "manifests"] {
            let sql = format!("UPDATE {table} SET pushed_at = pushed_at - 7200");
            self.references.connection.execute(&sql, []).unwrap();
        }
    }

    fn left(&mut self) -> Vec<String> {
        let mut left: Vec<_> = self.references.forget(HOUR).unwrap().into_iter().collect();
        left.sort_by_key(ToString::to_string);
        left.iter().map(ToString::to_string).collect()
    }
}

fn name() -> Name {
    "hello".parse().unwrap()
}

fn digest(text: &str) -> Digest {
    digest_of(text.as_bytes())
}

fn sorted(texts: &[&str]) -> Vec<String> {
    let mut all: Vec<_> = texts.iter().map(|it| digest(it).to_string()).collect();
    all.sort();
    all
}

fn manifest(text: &str, targets: &[&str], subject: Option<&str>) -> Manifest {
    let target = |it: &&str| Target {
        digest: digest(it),
        bytes: 1,
        is_manifest: false,
    };
    Manifest {
        digest: digest(text),
        media_type: "m".to_owned(),
        bytes: 1,
        subject: subject.map(digest),
        artifact_type: None,
        annotations: None,
        targets: targets.iter().map(target).collect(),
    }
}

#[test]
fn tagged_manifests_keep_their_blobs_and_referrers() {
    let mut place = Place::new();
    for blob in ["layer", "config", "stray", "signature's layer"] {
        place
            .references
            .add_blob(&name(), &digest(blob), &Limits::default())
            .unwrap();
    }
    place
        .put(
            digest("image").as_ref(),
            &manifest("image", &["layer", "config"], None),
        )
        .unwrap();
    place
        .put("1", &manifest("index", &["image"], None))
        .unwrap();
    let signature = manifest("signature", &["signature's layer"], Some("index"));
    place.put(digest("signature").as_ref(), &signature).unwrap();
    place
        .put(
            digest("lonely").as_ref(),
            &manifest("lonely", &["layer"], Some("gone")),
        )
        .unwrap();

    let all = [
        "layer",
        "config",
        "stray",
        "signature's layer",
        "image",
        "index",
        "signature",
        "lonely",
    ];
    assert_eq!(place.left(), sorted(&all), "what is new stays");
    place.age();
    let tagged = [
        "layer",
        "config",
        "signature's layer",
        "image",
        "index",
        "signature",
    ];
    assert_eq!(place.left(), sorted(&tagged));
    assert!(
        place
            .references
            .remove_manifest(&name(), &"1".parse().unwrap())
            .unwrap()
    );
    assert_eq!(place.left(), Vec::<String>::new());
    assert!(!place.references.has_repository(&name()).unwrap());
}

#[test]
fn a_requested_blob_is_renewed() {
    let mut place = Place::new();
    place
        .references
        .add_blob(&name(), &digest("a"), &Limits::default())
        .unwrap();
    place.age();
    place
        .references
        .renew_blob(&name(), &digest("a"), HOUR)
        .unwrap();
    assert_eq!(place.left(), sorted(&["a"]));
}

#[test]
fn deleting_a_manifest_deletes_its_tags_but_not_vice_versa() {
    let mut place = Place::new();
    for tag in ["1", "2"] {
        place.put(tag, &manifest("m", &["x"], None)).unwrap();
    }
    let which = |text: &str| -> Which { text.parse().unwrap() };
    assert!(
        place
            .references
            .remove_manifest(&name(), &which("1"))
            .unwrap()
    );
    assert!(
        !place
            .references
            .remove_manifest(&name(), &which("1"))
            .unwrap()
    );
    assert!(
        place
            .references
            .manifest(&name(), &which("2"))
            .unwrap()
            .is_some()
    );
    let digest = which(digest("m").as_ref());
    assert!(place.references.remove_manifest(&name(), &digest).unwrap());
    assert_eq!(
        place.references.manifest(&name(), &which("2")).unwrap(),
        None
    );
    assert!(
        !place
            .references
            .is_referred_to(&name(), &super::tests::digest("x"))
            .unwrap()
    );
}

#[test]
fn counts_are_limited() {
    let mut place = Place::new();
    let limits = Limits {
        repositories: 1,
        tags: 1,
        manifests: 2,
        ..Limits::default()
    };
    place
        .put_with("1", &manifest("a", &[], None), &limits)
        .unwrap();
    place
        .put_with("1", &manifest("b", &[], None), &limits)
        .unwrap();
    let error = place
        .put_with("2", &manifest("b", &[], None), &limits)
        .unwrap_err();
    assert!(error.to_string().contains("1 tags"), "{error}");
    let error = place
        .put_with("1", &manifest("c", &[], None), &limits)
        .unwrap_err();
    assert!(error.to_string().contains("2 manifests"), "{error}");
    let other: Name = "other".parse().unwrap();
    let error = place
        .references
        .add_blob(&other, &digest("x"), &limits)
        .unwrap_err();
    assert_eq!((error.code(), error.status().as_u16()), ("DENIED", 403));
    let now = place
        .references
        .manifest(&name(), &"1".parse().unwrap())
        .unwrap();
    assert_eq!(now.unwrap().digest, digest("b"));
}

#[test]
fn a_full_database_refuses_the_whole_change() {
    let directory = tempfile::tempdir().unwrap();
    let mut references = References::open(&directory.path().join("r"), 128 << 10).unwrap();
    let which = "1".parse().unwrap();
    let targets: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let large = manifest("large", &targets, None);
    let error = references
        .put_manifest(&name(), &large, &which, &Limits::default())
        .unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!((error.code(), error.status().as_u16()), ("DISK_FULL", 507));
    assert_eq!(references.manifest(&name(), &which).unwrap(), None);
}

#[test]
fn a_database_of_a_newer_program_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let references = References::open(&path, 1 << 30).unwrap();
    references
        .connection
        .pragma_update(None, "user_version", 9)
        .unwrap();
    drop(references);
    let error = References::open(&path, 1 << 30).unwrap_err().to_string();
    assert!(error.contains("schema 9"), "{error}");
}
