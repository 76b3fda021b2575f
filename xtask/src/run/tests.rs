use super::*;

#[test]
fn variables_about_this_package_are_removed_for_cargo() {
    assert!(is_about_own_package("CARGO_PKG_NAME"));
    assert!(is_about_own_package("CARGO_MANIFEST_DIR"));
    assert!(!is_about_own_package("CARGO_HOME"));
    assert!(!is_about_own_package("CARGO_TARGET_DIR"));
    let cargo = cargo();
    let removed: Vec<_> = cargo
        .get_envs()
        .filter(|(_, value)| value.is_none())
        .filter_map(|(name, _)| name.to_str())
        .collect();
    assert!(removed.contains(&"CARGO_PKG_NAME"), "{removed:?}");
    assert!(removed.contains(&"CARGO_MANIFEST_DIR"), "{removed:?}");
}

#[test]
fn a_failed_step_names_the_program() {
    let error = step("trying", &mut Command::new("false")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("trying failed: false ended with"),
        "{error}"
    );
}
