use super::*;

#[test]
fn names_match_with_default_registry_and_tag() {
    for (name, wanted) in [
        ("latest", "latest"),
        ("docker.io/library/nginx:latest", "nginx"),
        ("nginx:latest", "docker.io/library/nginx"),
        ("localhost/app:1", "app:1"),
        ("docker.io/me/app:2", "me/app:2"),
        ("registry:5000/app", "registry:5000/app:latest"),
    ] {
        assert!(is_same(name, wanted), "{name} {wanted}");
    }
    for (name, wanted) in [
        ("nginx:1", "nginx"),
        ("app:1", "app:2"),
        ("other.example/app:1", "app:1"),
        ("registry:5000/app", "registry"),
        ("app@sha256:aa", "app"),
    ] {
        assert!(!is_same(name, wanted), "{name} {wanted}");
    }
}

#[test]
fn without_a_name_every_image_matches() {
    assert!(NameFilter::new(None).matches(&[]));
    assert!(!NameFilter::new(Some("a")).matches(&[]));
    assert!(NameFilter::new(Some("a")).matches(&["b:latest".to_owned(), "a:latest".to_owned()]));
}

#[test]
fn both_annotations_name_an_image() {
    let annotations: HashMap<String, String> = [
        (REF_NAME, "1.0"),
        (CONTAINERD_NAME, "docker.io/library/app:1.0"),
        ("other", "x"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let names = names_of(Some(&annotations));
    assert_eq!(names, ["docker.io/library/app:1.0", "1.0"]);
    assert!(names_of(None).is_empty());
}
