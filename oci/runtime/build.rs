//! Links `tucano_oci` statically on hosts with the GNU C library, so that a plain `cargo build` gives a program that starts
//! nearly as fast as the packages' (docs/decisions/0077). It is executed for each container, and the dynamic linker is a third of
//! its start.
//!
//! Rust's standard library asks for shared libraries unless the whole build is static, which would build everything a second
//! time. So their names lead to the static ones, for this program alone: linker scripts in a directory that is searched
//! first. Where a static library is missing (Fedora has them in `glibc-static`) the program is linked as usual.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The libraries that Rust's standard library names, and what they are statically.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("gcc_s", &["libgcc_eh.a", "libgcc.a"]),
    ("c", &["libc.a", "libgcc.a", "libgcc_eh.a"]),
    ("m", &["libm.a", "libc.a"]),
    // Parts of libc.a since glibc 2.34.
    ("dl", &["libdl.a"]),
    ("pthread", &["libpthread.a"]),
    ("rt", &["librt.a"]),
    ("util", &["libutil.a"]),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if !is_dynamic_gnu() {
        return;
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if start_files_exist() && write_scripts(&directory) {
        let argument = |text: &str| println!("cargo:rustc-link-arg-bin=tucano_oci={text}");
        argument(&format!("-L{}", directory.display()));
        argument("-static-pie");
    }
}

/// Whether the target is this host's architecture with the GNU C library, linked as usual.
fn is_dynamic_gnu() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && env::var("TARGET") == env::var("HOST")
        && !features.split(',').any(|feature| feature == "crt-static")
}

fn start_files_exist() -> bool {
    ["rcrt1.o", "crti.o", "crtbeginS.o"]
        .into_iter()
        .all(|file| path_of(file).is_some())
}

/// Whether each library has a static form.
fn write_scripts(directory: &Path) -> bool {
    LIBRARIES.into_iter().all(|(name, archives)| {
        let paths: Option<Vec<_>> = archives.iter().map(|archive| path_of(archive)).collect();
        paths.is_some_and(|paths| {
            let script = directory.join(format!("lib{name}.so"));
            fs::write(script, format!("GROUP ( {} )\n", paths.join(" "))).is_ok()
        })
    })
}

/// Where the C compiler, which links, has a file.
fn path_of(file: &str) -> Option<String> {
    let mut compiler = Command::new("cc");
    let output = compiler
        .arg(format!("-print-file-name={file}"))
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = path.trim();
    Path::new(path).is_absolute().then(|| path.to_owned())
}
