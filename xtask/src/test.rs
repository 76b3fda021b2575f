//! Tests of the whole workspace, or of one crate with its needs alone.

use xtask::{
    apt,
    error::{Error, Result},
    needs::Needs,
    packages::{Purpose, missing, missing_of},
    run::{cargo, is_root, step},
};

use crate::{arguments::Test, tasks};

/// A test that lacks something of the machine fails where this is set, instead of skipping itself.
const MUST_RUN: &str = "TUCANO_TESTS_MUST_RUN";
/// The crate of the end-to-end tests: they run every program.
const END_TO_END: &str = "tucano_tests";
/// Its tests that install the Debian packages on machines.
const INSTALLING: [&str; 2] = ["guests", "vagrant"];
/// Upgrades are tested from the packages of this revision, where tests may take long.
const PREVIOUS: &str = "dac7e95";
const PREVIOUS_PACKAGES: (&str, &str) = ("TUCANO_PREVIOUS_PACKAGES", "target/packages/previous");
/// Tests, and sizes of tests, that take longer than CI should: variable and value.
const LONG: [(&str, &str); 4] = [
    ("TUCANO_LONG", "1"),
    ("TUCANO_RACES", "1000"),
    ("TUCANO_KILLS", "500"),
    ("PROPTEST_CASES", "4096"),
];

pub(crate) fn run(options: &Test) -> Result<()> {
    if options.packages.is_empty() {
        apt::install(&missing(Purpose::Test))?;
    } else {
        prepare(&options.packages)?;
    }
    if installs_packages(options) {
        tasks("package", &["--profile".to_owned(), "dev".to_owned()])?;
    }
    let mut test = cargo();
    if options.long && installs_packages(options) {
        let of_previous = ["--profile", "dev", "--revision", PREVIOUS];
        tasks("package", &of_previous.map(str::to_owned))?;
        test.env(PREVIOUS_PACKAGES.0, PREVIOUS_PACKAGES.1);
    }
    test.arg("test").env(MUST_RUN, "1");
    if options.packages.is_empty() {
        test.arg("--workspace");
    }
    if options.long {
        test.envs(LONG);
    }
    // Every failure of a run is reported, not only those of the first program.
    test.args(["--locked", "--no-fail-fast"]);
    step("building and running the tests", test.args(&options.cargo))
}

/// Installs and builds what some crates' tests need.
fn prepare(crates: &[String]) -> Result<()> {
    let mut needs = Needs::default();
    for name in crates {
        needs.join(Needs::of_crate(name)?);
    }
    if needs.root && !is_root() {
        let names = crates.join(" and ");
        return Err(Error::new(format!(
            "tests of {names} need root: run this as root; `cargo test -p {}` skips them",
            crates.join(" -p ")
        )));
    }
    if crates.iter().any(|name| name == END_TO_END) {
        apt::install(&missing(Purpose::Test))?;
    } else {
        apt::install(&missing_of(|package| needs.includes(package)))?;
    }
    if needs.programs.is_empty() {
        return Ok(());
    }
    let mut build = cargo();
    build.args(["build", "--locked", "--workspace"]);
    for program in &needs.programs {
        build.args(["--bin", program]);
    }
    if crates.iter().any(|name| name == END_TO_END) {
        // What `tucano dev` and the agents start in turn.
        build.args(["--bin", "tucano_balancerd", "--bin", "tucano_oci"]);
        build.args(["--bin", "tucano_vhost"]);
    }
    step("building the programs that the tests run", &mut build)
}

fn installs_packages(options: &Test) -> bool {
    let of_the_crate =
        options.packages.is_empty() || options.packages.iter().any(|name| name == END_TO_END);
    let of_the_target = options.targets.is_empty()
        || options
            .targets
            .iter()
            .any(|name| INSTALLING.contains(&name.as_str()));
    of_the_crate && of_the_target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_built_for_the_tests_that_install_them() {
        let options = |packages: &[&str], targets: &[&str]| Test {
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            targets: targets.iter().map(|name| (*name).to_owned()).collect(),
            ..Test::default()
        };
        assert!(installs_packages(&options(&[], &[])));
        assert!(installs_packages(&options(&["tucano_tests"], &[])));
        assert!(installs_packages(&options(&["tucano_tests"], &["guests"])));
        assert!(!installs_packages(&options(
            &["tucano_tests"],
            &["cluster"]
        )));
        assert!(!installs_packages(&options(&["tucano_api"], &[])));
    }
}
