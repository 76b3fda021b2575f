use super::*;

fn results(failed: &[&str]) -> Failures {
    let outcome = Outcome {
        passed: 3,
        failed: failed.iter().map(|name| (*name).to_owned()).collect(),
    };
    [("mounts".to_owned(), outcome)].into()
}

#[test]
fn the_table_has_a_column_for_each_runtime() {
    let text = table(&[
        ("ours".into(), results(&[])),
        ("theirs".into(), results(&["a", "b"])),
    ]);
    assert!(text.contains("| `mounts` | 0 | 2 |"), "{text}");
    assert!(text.contains("| all that hold | 3 | 3 |"), "{text}");
}

#[test]
fn an_unexplained_failure_is_an_error() {
    let known = explained("text\n| `mounts` | 1 | because |\n| other | 2 | no |\n");
    assert_eq!(known, [("mounts".to_owned(), 1)].into());
    judge(&results(&["a"]), &known).unwrap();
    let error = judge(&results(&["a", "b"]), &known).unwrap_err();
    assert!(error.to_string().contains("mounts: a; b"), "{error}");
}

#[test]
fn the_page_explains_something() {
    let page = fs::read_to_string(workspace().join(EXPLANATIONS)).unwrap();
    assert!(!explained(&page).is_empty());
}
