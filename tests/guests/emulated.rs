//! What an emulated guest is made of: Debian's kernel, a machine by QEMU, and this machine's files by virtiofs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tucano_testkit::{Need, tool, wait_until};
use tucano_tests::images::workspace;

use crate::guest::here;

/// What emulated guests need of the machine beside what every guest needs.
pub(crate) const EMULATED: [Need; 5] = [
    tool("qemu-system-x86_64"),
    Need::Exists(FILE_SERVER),
    tool("apt-get"),
    tool("dpkg-deb"),
    tool("depmod"),
];

/// It comes with QEMU, and is on no PATH.
const FILE_SERVER: &str = "/usr/lib/qemu/virtiofsd";

/// What costs an emulated machine much, or fails where this one is busy: the kernel panics if its timer is late.
const SPARED: &str = "no_timer_check nowatchdog mitigations=off";

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves this machine's files, until the guest lets go of them, or it is dropped.
pub(crate) struct Files(Child);

impl Files {
    /// At `files.socket` in the directory.
    pub(crate) fn share(directory: &Path) -> Self {
        let socket = directory.join("files.socket");
        let server = Command::new(FILE_SERVER)
            .arg(format!("--socket-path={}", socket.display()))
            .args(["-f", "-o", "source=/", "-o", "sandbox=chroot"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("files.log")).unwrap())
            .spawn()
            .unwrap();
        let files = Self(server);
        wait_until("the file server", PATIENCE, || socket.exists());
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It may have ended with its guest.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Adds the emulator and its arguments to a command. It never uses KVM, which not every machine lets its guests use.
pub(crate) fn add(command: &mut Command, directory: &Path, disk: &Path, words: &[String]) {
    let line = prepare(directory, words);
    command
        .arg("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-machine", "q35"])
        .args(["-cpu", "max,la57=off", "-smp", "2", "-m", "1024M"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio"])
        // The file server sees the guest's memory.
        .args([
            "-object",
            "memory-backend-memfd,id=memory,size=1024M,share=on",
        ])
        .args(["-numa", "node,memdev=memory"])
        .arg("-chardev")
        .arg(format!(
            "socket,id=files,path={}/files.socket",
            directory.display()
        ))
        // Without MSI-X: the emulator of Debian 12 was once ended by a write to its table (`msix_table_mmio_write`).
        .args([
            "-device",
            "vhost-user-fs-pci,chardev=files,tag=host,vectors=0",
        ])
        .args(["-global", "virtio-blk-pci.vectors=0"])
        .arg("-drive")
        .arg(format!(
            "file={},if=virtio,format=raw,cache=unsafe",
            disk.display()
        ))
        .arg("-kernel")
        .arg(kernel().join("vmlinuz"))
        .arg("-initrd")
        .arg(directory.join("initramfs"))
        .args(["-append", &line]);
}

/// Puts an `initramfs` into the directory, and gives the kernel's command line.
pub(crate) fn prepare(directory: &Path, words: &[String]) -> String {
    let kernel = kernel();
    run(Command::new(here().join("initramfs.sh"))
        .arg(kernel)
        .arg(directory.join("initramfs")));
    format!(
        "console=ttyS0 quiet panic=-1 {SPARED} hugepages=8 modules={}/lib/modules {}",
        kernel.display(),
        words.join(" ")
    )
}

/// Its release, as uname(1) tells it in the guest.
pub(crate) fn release() -> String {
    let mut modules = fs::read_dir(kernel().join("lib/modules")).unwrap();
    let directory = modules.next().unwrap().unwrap();
    directory.file_name().into_string().unwrap()
}

/// Debian's kernel, fetched once for all tests: `vmlinuz` and `lib/modules` in this directory.
pub(crate) fn kernel() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = workspace().join("target/guests");
        fs::create_dir_all(&directory).unwrap();
        // Another test's program may be at it too; the lock goes with its file.
        let lock = File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        let kernel = directory.join("kernel");
        if !kernel.exists() {
            run(Command::new(here().join("kernel.sh")).arg(&kernel));
        }
        kernel
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
