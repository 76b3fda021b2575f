//! Images of what other people wrote, from Debian's packages: databases, and Python with their clients.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use tucano_image_builder::{Compression, ImageSpec, Layer};
use tucano_testkit::{Need, tool};

use crate::images::workspace;

/// What is needed to make them.
pub const DATABASES: [Need; 1] = [tool("mmdebstrap")];

/// Removes what is not needed.
const CLEAN: &str =
    "cd \"$1\" && rm -rf var/lib/apt/lists var/cache usr/share/man usr/share/doc usr/share/locale";

/// An image to make.
struct Image {
    name: &'static str,
    packages: &'static str,
    /// Commands of a shell, in whose first argument the tree is.
    customize: [&'static str; 2],
    path: &'static str,
}

/// The OCI archive with PostgreSQL and Redis, and a directory for the data of PostgreSQL.
///
/// # Panics
/// If it cannot be made.
pub fn image() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let image = Image {
        name: "databases",
        packages: "postgresql-15,redis-server,busybox",
        customize: [
            "cd \"$1\" && rm -rf usr/lib/postgresql/15/lib/bitcode && install -d -m 700 data",
            "chroot \"$1\" chown postgres:postgres /data",
        ],
        path: "/usr/lib/postgresql/15/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    };
    MADE.get_or_init(|| image.archive()).clone()
}

/// The OCI archive with Python and its clients of PostgreSQL and Redis.
///
/// # Panics
/// If it cannot be made.
pub fn python() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let image = Image {
        name: "python",
        packages: "python3,python3-psycopg2,python3-redis",
        customize: ["true", "true"],
        path: "/usr/bin:/bin",
    };
    MADE.get_or_init(|| image.archive()).clone()
}

impl Image {
    /// The archive, which is made once and kept among the sample images.
    fn archive(&self) -> PathBuf {
        let directory = workspace().join("target/images");
        fs::create_dir_all(&directory).expect("a directory for images");
        let archive = directory.join(format!("{}.tar", self.name));
        if !archive.exists() {
            self.make(&archive);
        }
        archive
    }

    fn make(&self, archive: &std::path::Path) {
        let root = archive.with_extension("root.tar");
        let hook = |command: &str| format!("--customize-hook={command}");
        let status = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=essential"])
            .arg(format!("--include={}", self.packages))
            .args(self.customize.map(hook))
            .arg(hook(CLEAN))
            .arg("bookworm")
            .arg(&root)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "mmdebstrap");
        let tar = fs::read(&root).expect("the tree");
        let layer = Layer::from_tar(&tar, Compression::None).expect("a layer");
        let mut image = ImageSpec::new(self.name).layer(layer);
        image.entrypoint.clear();
        image.user.clear();
        image.env = vec![format!("PATH={}", self.path)];
        let bytes = image.build().and_then(|layout| layout.archive());
        let unfinished = archive.with_extension("new");
        fs::write(&unfinished, bytes.expect("an archive")).expect("the archive is written");
        fs::rename(&unfinished, archive).expect("the archive is there");
        fs::remove_file(&root).expect("the tree is removed");
    }
}
