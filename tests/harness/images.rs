//! OCI archives for the tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The workspace's root directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the workspace")
}

/// Directory of the sample services' images: `<name>/` as OCI layout and `<name>.tar` as OCI archive.
///
/// # Panics
/// If they cannot be built.
pub fn samples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = workspace().join("target/images");
        tucano_image_builder::build_all(workspace(), &out).expect("the sample images can be built");
        out
    })
}

/// The OCI archive of a sample service.
pub fn sample(name: &str) -> PathBuf {
    samples().join(format!("{name}.tar"))
}

/// `hello`, built up by umoci from nothing but the program: a tar of the layout that umoci writes.
///
/// # Panics
/// If a tool fails.
pub fn hello_by_umoci(directory: &Path) -> PathBuf {
    let layout = directory.join("layout");
    let image = format!("{}:latest", layout.display());
    let program = tucano_image_builder::build_programs(workspace())
        .expect("the sample programs can be built")
        .join("hello");
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    run(
        "umoci",
        &["insert", "--image", &image, text(&program), "/hello"],
    );
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.entrypoint",
            "/hello",
            "--config.user",
            "1000:1000",
        ],
    );
    let archive = directory.join("hello-by-umoci.tar");
    run("tar", &["-C", text(&layout), "-cf", text(&archive), "."]);
    archive
}

/// `hello`, copied by skopeo from an OCI layout to an OCI archive.
///
/// # Panics
/// If skopeo fails.
pub fn hello_by_skopeo(directory: &Path) -> PathBuf {
    let archive = directory.join("hello-by-skopeo.tar");
    let from = format!("oci:{}", samples().join("hello").display());
    let to = format!("oci-archive:{}", archive.display());
    run("skopeo", &["--insecure-policy", "copy", &from, &to]);
    archive
}

/// Runs a tool to its successful end.
///
/// # Panics
/// If it fails, with what it said.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the tool can be started");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A path as text.
///
/// # Panics
/// If it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
