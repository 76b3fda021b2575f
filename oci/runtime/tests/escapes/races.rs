//! Starts while somebody swaps names all the while: what was looked at must be what is used. A naive runtime checks a path and then
//! uses it by its name; sooner or later the name is a link by then (CVE-2021-30465, CVE-2024-45310, CVE-2025-31133, CVE-2025-52565).
//!
//! `TUCANO_RACES` says how many starts there are; CI makes do with fewer than a release is tried with, which is 1,000.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::{Outside, add_mount, bind},
};

const USUAL: usize = 80;

/// Names in the root file system that are used during a start.
const NAMES: [&str; 7] = [
    "proc",
    "sys",
    "dev",
    "volume/a",
    "work",
    "etc/hosts",
    "etc/passwd",
];

/// Tells what it finds, and writes where it was told it could. A mount goes with its directory when that is renamed, so the
/// real procfs may be at any of its names, or gone: wherever it is, what was to be hidden must be.
const SCRIPT: &str = "\
for proc in /proc /.proc /.proc-directory; do
  if [ -e $proc/timer_list ] && grep -q . $proc/timer_list; then echo $proc is not masked; fi
  if echo cell 2>/dev/null > $proc/sys/kernel/hostname; then echo $proc is not read-only; fi
done
for place in . /volume/a/b /volume/a/c/d /dev/shm; do echo mine 2>/dev/null > $place/mine; done
echo mine > /etc/hosts
echo end";

fn starts() -> usize {
    let asked = std::env::var("TUCANO_RACES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(USUAL)
}

/// A name and the link that replaces it.
struct Swap {
    name: PathBuf,
    link: PathBuf,
}

impl Swap {
    fn new(root: &Path, name: &str, target: &Path) -> Self {
        let link = root.join(format!(".{}", name.replace('/', "-")));
        symlink(target, &link).unwrap();
        let name = root.join(name);
        Self { name, link }
    }

    /// Swaps with another directory instead of a link.
    fn of_directories(root: &Path, name: &str) -> Self {
        let link = root.join(format!(".{name}-directory"));
        fs::create_dir(&link).unwrap();
        let name = root.join(name);
        Self { name, link }
    }

    fn swap(&self) {
        renameat_with(CWD, &self.name, CWD, &self.link, RenameFlags::EXCHANGE).ok();
    }
}

fn prepared() -> (Case, Outside, Vec<Swap>) {
    let mut case = Case::new(SCRIPT);
    let outside = Outside::of(&case);
    let root = case.path("rootfs");
    for directory in ["proc", "sys", "dev", "volume/a", "work"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("etc/hosts"), "").unwrap();
    let shown = case.path("shown");
    fs::create_dir(&shown).unwrap();
    fs::write(case.path("hosts"), "").unwrap();
    add_mount(
        &mut case,
        json!({"destination": "/volume/a/b", "type": "tmpfs", "source": "tmpfs"}),
    );
    add_mount(&mut case, bind(&shown, "/volume/a/c/d"));
    let hosts = bind(&case.path("hosts"), "/etc/hosts");
    add_mount(&mut case, hosts);
    case.config["root"]["readonly"] = false.into();
    case.config["process"]["cwd"] = "/work/made".into();
    let links = NAMES.map(|name| {
        let is_file = root.join(name).is_file();
        let target = if is_file {
            outside.file()
        } else {
            outside.0.clone()
        };
        Swap::new(&root, name, &target)
    });
    let directories = [Swap::of_directories(&root, "proc")];
    let swaps = links.into_iter().chain(directories).collect();
    (case, outside, swaps)
}

#[test]
fn races_with_renames_do_not_escape() {
    if !needs(&NEEDS) {
        return;
    }
    let (case, outside, swaps) = prepared();
    let (over, current) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut started, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1_u32;
            while !over.load(Ordering::Relaxed) {
                let round = current.load(Ordering::Relaxed);
                let swap = &swaps[round % swaps.len()];
                // Continuously or briefly, so that starts reach each of their steps.
                let (wrong, right) =
                    [(1, 1), (300, 3_000), (300, 100_000)][round / swaps.len() % 3];
                for longest in [wrong, right] {
                    swap.swap();
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (0..random % longest).for_each(|_| std::hint::spin_loop());
                }
            }
        });
        // The adversary stops when the test ends.
        let _ending = OnDrop(|| over.store(true, Ordering::Relaxed));
        for round in 0..starts() {
            current.store(round, Ordering::Relaxed);
            let output = case.run();
            let said = String::from_utf8_lossy(&output.stdout);
            match output.status.success() {
                true => {
                    assert_eq!(said, "end\n", "{round}: {output:?}");
                    started += 1;
                }
                false => refused += 1,
            }
            outside.assert_untouched();
        }
    });
    println!("{started} started, {refused} refused");
    assert!(started > 0, "the adversary alone was at work");
    assert!(case.is_gone());
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
