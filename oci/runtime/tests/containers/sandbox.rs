//! Optional privileges of a service, and the defaults, seen from inside its container.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
};

use tucano_testkit::{ROOT, needs, tool};

use super::harness::{Case, field};

const BASE: u32 = 800_000;

/// Capabilities of `caps = "web"`.
const WEB: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// Their bit mask (capability.h).
const WEB_BITS: &str = "00000000000004cb";

fn with(arguments: &[&str], capabilities: &[&str]) -> Case {
    let mut case = Case::new(arguments);
    case.sandbox.user_namespace = Some(BASE);
    case.sandbox.capabilities = capabilities.iter().map(ToString::to_string).collect();
    case
}

#[test]
fn a_server_with_capabilities_can_change_its_user() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, with_them) = with(&["become", "33"], &WEB).run();
    let expected =
        "chown: Ok(())\nsetgroups: Ok(())\nsetgid: Ok(())\nsetuid: Ok(())\nwrite: true\n";
    assert_eq!(with_them, expected);
    let (_, without) = with(&["become", "33"], &[]).run();
    let expected = "chown: Err(EPERM)\nsetgroups: Err(EPERM)\nsetgid: Err(EPERM)\nsetuid: Err(EPERM)\nwrite: true\n";
    assert_eq!(without, expected);
}

#[test]
fn capabilities_are_granted_but_never_inheritable() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, status) = with(&["cat", "/proc/self/status"], &WEB).run();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, set), WEB_BITS, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    let mut somebody = with(&["cat", "/proc/self/status"], &WEB);
    somebody.user = Some("web".into());
    let (_, status) = somebody.run();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
}

/// The mount and network namespaces belong to the node, so the container's capabilities do not apply to them.
#[test]
fn capabilities_reach_nothing_beyond_the_user_namespace() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, outcome) = with(&["calls"], &WEB).run();
    for call in [
        "mount",
        "chroot",
        "unshare-mount",
        "raw-socket",
        "mknod",
        "af-packet",
    ] {
        assert!(outcome.contains(&format!("{call}: Err(E")), "{outcome}");
    }
    let case = with(&["become", "33"], &WEB);
    let kept = case.layer().join("tmp");
    case.run();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(kept).unwrap()),
        0,
        "the layer stays as it is"
    );
}

#[test]
fn chroot_works_only_with_its_capability() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, outcome) = with(&["chroot", "/tmp"], &["SYS_CHROOT"]).run();
    assert_eq!(outcome.trim(), "()");
    let (_, outcome) = with(&["chroot", "/tmp"], &WEB).run();
    assert!(outcome.contains("not permitted"), "{outcome}");
}

#[test]
fn a_read_only_root_leaves_a_bounded_tmp() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let read_only = |arguments: &[&str]| {
        let mut case = with(arguments, &WEB);
        case.sandbox.read_only = true;
        case.sandbox.tmp_bytes = Some(1 << 20);
        case
    };
    for path in ["/made", "/etc/passwd", "/inmate"] {
        let (_, outcome) = read_only(&["write", path, "x"]).run();
        assert!(
            outcome.contains("Read-only file system"),
            "{path}: {outcome}"
        );
    }
    assert_eq!(read_only(&["fill", "/tmp/full"]).run().1.trim(), "1024");
}

/// As with Docker: what the image has below a declared volume is there, with its owners, and can be changed.
#[test]
fn a_volume_is_writable_below_a_read_only_root() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let with_volumes = |arguments: &[&str], namespace: Option<u32>| {
        let mut case = with(arguments, &WEB);
        case.sandbox.user_namespace = namespace;
        case.sandbox.read_only = true;
        case.user = Some("33:33".into());
        // Doubled, nested, through a link, missing, no directory, and the root itself.
        let paths = [
            "/data",
            "/data",
            "/data/below",
            "/link",
            "/none",
            "/inmate",
            "/",
            "/data/..",
            "/tmp",
        ];
        case.writable = paths.map(Into::into).into();
        for directory in ["data", "data/below", "linked", "beside"] {
            let directory = case.layer().join(directory);
            fs::create_dir_all(&directory).unwrap();
            chown(&directory, Some(33), Some(33)).unwrap();
        }
        let file = case.layer().join("data/below/file");
        fs::write(&file, "of the image").unwrap();
        chown(&file, Some(33), Some(33)).unwrap();
        symlink("/linked", case.layer().join("link")).unwrap();
        case
    };
    for namespace in [Some(BASE), None] {
        for path in [
            "/data/made",
            "/data/below/file",
            "/data/below/made",
            "/linked/made",
        ] {
            let case = with_volumes(&["write", path, "x"], namespace);
            assert_eq!(case.run().1.trim(), "written", "{path}");
            let kept = fs::read(case.home().join("upper").join(&path[1..])).unwrap();
            assert_eq!(kept, b"x", "{path}");
            let layer = case.layer().join("data/below/file");
            assert_eq!(fs::read(layer).unwrap(), b"of the image");
        }
        for path in ["/made", "/beside/made", "/etc/passwd"] {
            let (_, outcome) = with_volumes(&["write", path, "x"], namespace).run();
            assert!(
                outcome.contains("Read-only file system"),
                "{path}: {outcome}"
            );
        }
        let (_, content) = with_volumes(&["cat", "/data/below/file"], namespace).run();
        assert_eq!(content.trim(), "of the image");
        let (_, owner) = with_volumes(&["owner", "/data/below/file"], namespace).run();
        assert_eq!(owner.trim(), "33:33");
        let (_, outcome) = with_volumes(&["write", "/tmp/made", "x"], namespace).run();
        assert_eq!(outcome.trim(), "written");
    }
}

/// Containers of an earlier version have records without the field.
#[test]
fn a_launch_without_volumes_is_read() {
    let case = Case::new(&["exit", "0"]);
    let launch = serde_json::to_value(case.launch()).unwrap();
    assert!(launch["rootfs"]["overlay"].get("writable").is_none());
    serde_json::from_value::<tucano_oci_runtime::launch::Launch>(launch).unwrap();
}

#[test]
fn shared_memory_is_bounded() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = with(&["fill", "/dev/shm/full"], &[]);
    case.sandbox.memory_bytes = 128 << 20;
    assert_eq!(case.run().1.trim(), (64 << 10).to_string());
    let mut case = with(&["fill", "/dev/shm/full"], &[]);
    case.sandbox.shared_memory_bytes = Some(2 << 20);
    assert_eq!(case.run().1.trim(), "2048");
}

#[test]
fn oom_score_and_core_limit_are_set() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, score) = with(&["cat", "/proc/self/oom_score_adj"], &[]).run();
    assert_eq!(score.trim(), "500");
    let (_, outcome) = with(&["write", "/proc/self/oom_score_adj", "-1000"], &WEB).run();
    assert!(outcome.contains("error: "), "{outcome}");
    let (_, limits) = with(&["cat", "/proc/self/limits"], &[]).run();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    let numbers: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
}

/// A container without any other protection: no filter, and every capability on the node.
fn unrestrained(arguments: &[&str]) -> String {
    let case = Case::new(arguments);
    let mut launch = case.launch();
    let everything: Vec<String> = ["SYS_ADMIN", "MKNOD", "DAC_OVERRIDE"]
        .map(|name| format!("CAP_{name}"))
        .into();
    let mut spec = serde_json::to_value(&launch.spec).unwrap();
    spec["linux"]["seccomp"] = serde_json::Value::Null;
    spec["linux"]["resources"]["devices"] = serde_json::json!([{"allow": true, "access": "rwm"}]);
    spec["process"]["capabilities"] = serde_json::json!({
        "bounding": everything, "effective": everything, "permitted": everything
    });
    launch.spec = serde_json::from_value(spec).unwrap();
    drop(tucano_oci_runtime::supervisor::start(&super::harness::program(), &launch).unwrap());
    case.wait_for_exit();
    case.stdout()
}

#[test]
fn landlock_holds_without_other_protections() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    if !tucano_oci_runtime::features::has_landlock() {
        eprintln!("SKIPPED: the kernel has no Landlock, or it is not active");
        return;
    }
    let node = unrestrained(&["node", "/made"]);
    assert!(node.contains("Permission denied"), "{node}");
    let mounted = unrestrained(&["mount", "/tmp"]);
    assert!(mounted.contains("Operation not permitted"), "{mounted}");
    assert_eq!(
        unrestrained(&["move", "/tmp/x", "/etc/x"]).trim(),
        "()",
        "between directories"
    );
    assert_eq!(
        Case::new(&["move", "/tmp/x", "/etc/x"]).run().1.trim(),
        "()"
    );
}

/// They have no effect under no_new_privs; elsewhere the kernel refuses to execute what asks for capabilities that cannot be
/// had.
#[test]
fn a_program_with_file_capabilities_runs() {
    if !needs(&[ROOT, tool("ldd"), tool("setcap")]) {
        return;
    }
    for capability in ["cap_net_bind_service=ep", "cap_ipc_lock=ep"] {
        for user_namespace in [None, Some(BASE)] {
            let mut case = Case::new(&["exit", "7"]);
            case.sandbox.user_namespace = user_namespace;
            let program = case.layer().join("inmate");
            // Layers of tests are links to one another.
            let copy = case.layer().join("copy");
            fs::copy(&program, &copy).unwrap();
            fs::rename(&copy, &program).unwrap();
            let mut setcap = std::process::Command::new("setcap");
            assert!(
                setcap
                    .arg(capability)
                    .arg(&program)
                    .status()
                    .unwrap()
                    .success()
            );
            assert_eq!(
                case.run().0.code,
                Some(7),
                "{capability} {user_namespace:?}"
            );
        }
    }
}

#[test]
fn a_server_that_has_become_another_user_can_open_its_outputs_again() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, written) = with(&["become-and-write", "33"], &WEB).run();
    assert!(written.contains("written again"), "{written}");
}
