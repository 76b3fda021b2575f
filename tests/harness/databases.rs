//! An image with PostgreSQL and Redis from Debian's packages.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use tucano_image_builder::{Compression, ImageSpec, Layer};
use tucano_testkit::{Need, tool};

use crate::images::workspace;

/// What is needed to make it.
pub const DATABASES: [Need; 1] = [tool("mmdebstrap")];

/// Removes what is not needed, and makes a directory for the data of PostgreSQL.
const CUSTOMIZE: &str = "cd \"$1\" && rm -rf var/lib/apt/lists var/cache usr/share/man usr/share/doc usr/share/locale \
    usr/lib/postgresql/15/lib/bitcode && install -d -m 700 data";

/// The OCI archive. It is made once and kept among the sample images.
///
/// # Panics
/// If it cannot be made.
pub fn image() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let directory = workspace().join("target/images");
        fs::create_dir_all(&directory).expect("a directory for images");
        let archive = directory.join("databases.tar");
        if !archive.exists() {
            make(&archive);
        }
        archive
    });
    made.clone()
}

fn make(archive: &std::path::Path) {
    let root = archive.with_extension("root.tar");
    let customize = format!("--customize-hook={CUSTOMIZE}");
    let owner = "--customize-hook=chroot \"$1\" chown postgres:postgres /data".to_owned();
    let status = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=essential"])
        .arg("--include=postgresql-15,redis-server,busybox")
        .args([customize, owner, "bookworm".to_owned()])
        .arg(&root)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "mmdebstrap");
    let tar = fs::read(&root).expect("the tree");
    let layer = Layer::from_tar(&tar, Compression::None).expect("a layer");
    let mut image = ImageSpec::new("databases").layer(layer);
    image.entrypoint.clear();
    image.user.clear();
    image.env = vec!["PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned()];
    let bytes = image.build().and_then(|layout| layout.archive());
    let unfinished = archive.with_extension("new");
    fs::write(&unfinished, bytes.expect("an archive")).expect("the archive is written");
    fs::rename(&unfinished, archive).expect("the archive is there");
    fs::remove_file(&root).expect("the tree is removed");
}
