//! Debian packages, of static programs, by cargo-deb. What each has in it is written in the crates' manifests
//! (`package.metadata.deb`), its files in `dist/`.

mod revision;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use clap::Args;

use crate::run::{Tool, cargo, programs, step, workspace};

/// What makes packages of the programs.
const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    arguments: &[],
};

/// The programs that are in packages.
const PROGRAMS: [&str; 6] = [
    "tucano_ctld",
    "tucano_balancerd",
    "tucano_agentd",
    "tucano_oci",
    "tucano_backup",
    "tucano",
];

/// The one of them that is started for each container: it is linked with musl, which starts in less time (`docs/decisions/0077`).
const RUNTIME: &str = "tucano_oci";

/// Writes what packages have beside them.
const MANUALS: &str = "tucano_manuals";

/// The crates that describe packages.
const PACKAGES: [&str; 3] = ["tucano_ctl", "tucano_agent", "tucano_cli"];

/// Options of `package`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Cargo's profile: `dev` is quickly built, for tests.
    #[arg(long, default_value = "release")]
    pub(crate) profile: String,
    /// The packages of an earlier revision, by its own `cargo xtask package`, into `target/packages/previous`.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) revision: Option<String>,
}

/// Builds the packages into `target/packages/<profile>`, and lists them.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let cargo_deb = CARGO_DEB.find_or_install()?;
    if let Some(revision) = &options.revision {
        return revision::package(revision, &options.profile);
    }
    let directory = workspace().join("target/packages");
    let stage = directory.join("stage");
    fs::create_dir_all(&stage).with_context(|| format!("cannot create {}", stage.display()))?;
    let runtime = build_runtime(&options.profile)?;
    let is_built = runtime.is_some();
    let others = PROGRAMS
        .into_iter()
        .filter(|program| *program != RUNTIME || !is_built);
    build(&options.profile, others.clone().chain([MANUALS]))?;
    let built = built(&options.profile);
    let others = others.map(|program| built.join(program));
    for program in others.chain(runtime) {
        let name = program.file_name().unwrap_or_default();
        strip(&program, &stage.join(name))?;
    }
    step(
        "writing manual pages and completions",
        Command::new(built.join(MANUALS)).arg(&stage),
    )?;
    let output = directory.join(&options.profile);
    for package in PACKAGES {
        let mut pack = Command::new(&cargo_deb);
        pack.current_dir(workspace())
            .args(["deb", "--package", package, "--locked", "--quiet"])
            // The programs are where the assets say, stripped.
            .args(["--no-build", "--no-strip", "--output"])
            .arg(&output);
        if options.profile != "release" {
            pack.arg("--fast");
        }
        step(&format!("packing {package}"), &mut pack)?;
    }
    tell(&output)
}

/// Of the whole workspace, so that crates have the same features, and are shared with the usual builds.
fn build(profile: &str, programs: impl Iterator<Item = &'static str>) -> anyhow::Result<()> {
    let mut build = static_build(profile);
    build.arg("--workspace");
    for program in programs {
        build.args(["--bin", program]);
    }
    step("building static programs", &mut build)
}

/// With musl, unless Rust's library for it is neither there nor to be had: then the other, which does the same, is in the package.
fn build_runtime(profile: &str) -> anyhow::Result<Option<PathBuf>> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    if !has_target(&target) {
        let mut add = Command::new("rustup");
        add.args(["target", "add", &target]);
        if let Err(error) = step(&format!("installing Rust's {target}"), &mut add) {
            eprintln!(
                "xtask: {RUNTIME} is linked with the GNU C library, and starts slower: {error:#}"
            );
            return Ok(None);
        }
    }
    let mut build = static_build(profile);
    build.args(["--bin", RUNTIME, "--target", &target]);
    build.args(["--package", "tucano_oci_runtime"]);
    step(&format!("building {RUNTIME} with musl"), &mut build)?;
    let directory = programs().with_file_name(target);
    Ok(Some(directory.join(directory_of(profile)).join(RUNTIME)))
}

fn has_target(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let output = rustc.current_dir(workspace()).output();
    output.is_ok_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(directory.trim()).is_dir()
    })
}

fn static_build(profile: &str) -> Command {
    let wrapper = workspace().join("dist/static-rustc");
    let mut build = cargo();
    build
        .args(["build", "--locked", "--profile", profile])
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    build
}

/// Where cargo puts the programs of a profile.
fn built(profile: &str) -> PathBuf {
    programs().with_file_name(directory_of(profile))
}

fn directory_of(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

fn strip(program: &Path, stripped: &Path) -> anyhow::Result<()> {
    step(
        &format!("stripping {}", program.display()),
        Command::new("strip")
            .arg("--strip-all")
            .args(["--remove-section=.comment", "--remove-section=.note", "-o"])
            .args([stripped, program]),
    )
}

fn tell(output: &Path) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(output).with_context(|| format!("cannot read {}", output.display()))?;
    for entry in entries {
        println!("{}", entry?.path().display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_in_a_package() {
        let manifests: String = ["ctl", "agent", "cli"]
            .map(|package| {
                fs::read_to_string(workspace().join(package).join("Cargo.toml")).unwrap()
            })
            .concat();
        for program in PROGRAMS {
            let asset = format!("packages/stage/{program}\"");
            assert!(manifests.contains(&asset), "{program}");
        }
    }

    #[test]
    fn each_profile_has_its_directory() {
        assert!(built("dev").ends_with("debug"));
        assert!(built("release").ends_with("release"));
    }
}
