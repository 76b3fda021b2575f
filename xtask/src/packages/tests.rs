use super::*;

#[test]
fn each_package_is_listed_once_with_a_reason() {
    let mut names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PACKAGES.len());
    assert!(PACKAGES.iter().all(|package| !package.reason.is_empty()));
}

#[test]
fn a_purpose_includes_the_ones_before_it() {
    let count = |purpose| {
        PACKAGES
            .iter()
            .filter(|package| package.purpose <= purpose)
            .count()
    };
    assert!(count(Purpose::Build) < count(Purpose::Run) && count(Purpose::Run) < PACKAGES.len());
    assert!(count(Purpose::Run) < count(Purpose::Test));
    assert_eq!(count(Purpose::Conformance), PACKAGES.len());
}

#[test]
fn an_installed_program_is_found() {
    let needs = |program| {
        package(
            "x",
            Purpose::Run,
            Evidence::Programs(program),
            "for the test",
        )
    };
    assert!(needs(&["sh"]).is_there());
    assert!(!needs(&["no-such-program"]).is_there());
    assert!(needs(&["sh", "ls"]).brings("ls"));
}
