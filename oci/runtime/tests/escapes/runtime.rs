//! Attacks on the runtime's own program and descriptors.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tucano_testkit::{Need, ROOT, needs, programs, tool, wait_until};

use crate::{
    harness::{Case, NEEDS, TIMEOUT},
    outside::Outside,
};

const WITH_LDD: [Need; 4] = [ROOT, tool("busybox"), tool("ldd"), tool("strace")];

/// Waits for a process that executes something else than busybox, keeps its program open, lets it end, and then writes to it.
const CAPTOR: &str = r#"
busybox mkfifo /fifo /held
echo up
while [ -z "$caught" ]; do
  for process in /proc/[0-9]*; do
    case "$(readlink $process/exe)" in
      */busybox|'') ;;
      *) exec 9< $process/exe && caught=$process && break ;;
    esac
  done
done
cat /fifo > /dev/null
while [ -e $caught ]; do :; done
if echo overwritten 2>/dev/null >> /proc/self/fd/9; then echo outcome written; else echo outcome refused; fi
exec sleep 1000
"#;

/// CVE-2019-5736. A naive runtime that is executed inside (`exec` of `/proc/self/exe`) is the host's own file, which the
/// container's root may write to as soon as nobody executes it any more.
#[test]
fn the_runtimes_program_cannot_be_overwritten_through_proc_self_exe() {
    if !needs(&WITH_LDD) {
        return;
    }
    cannot_be_overwritten(|_, program| Command::new(program));
}

/// The same on a kernel that does not let a process say what its program is: the runtime executes itself again.
#[test]
fn the_program_is_protected_when_it_re_executes_itself() {
    if !needs(&WITH_LDD) {
        return;
    }
    let calls = cannot_be_overwritten(|case, program| {
        let mut command = Command::new("strace");
        command.args(["-qq", "--output-append-mode", "-o"]);
        command.arg(case.path("trace"));
        command.args(["-e", "trace=prctl,execveat"]);
        // There are two ways to say it, and a C library may ask for something else first.
        command.args(["-e", "inject=prctl:error=EPERM:when=1..3"]);
        command.arg(program);
        command
    });
    let again = calls.lines().filter(|call| call.starts_with("execveat("));
    let refused = calls.matches("(INJECTED)").count();
    assert_eq!((again.count() > 1, refused > 1), (true, true), "{calls}");
}

/// What is in the case's file `trace` then.
fn cannot_be_overwritten(run: impl Fn(&Case, &Path) -> Command) -> String {
    let case = Case::new(CAPTOR);
    let program = case.path("tucano_oci");
    // Not by this process: another test's child would have it open for writing for a moment, and it could not be executed.
    let copied = Command::new("cp")
        .arg(programs().join("tucano_oci"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let before = fs::read(&program).unwrap();
    for library in libraries(&program) {
        let inside = case.path("rootfs").join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&library, inside).unwrap();
    }
    let mut case = case;
    // What the host's root may, but for what would let it mount.
    case.config["root"]["readonly"] = false.into();
    for set in ["bounding", "effective", "permitted"] {
        case.config["process"]["capabilities"][set] =
            json!(["CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_CHOWN", "CAP_KILL"]);
    }
    case.write();
    let of_copy = || {
        let mut command = run(&case, &program);
        command.arg("--root").arg(case.path("state"));
        command
    };
    let out = fs::File::create(case.path("out")).unwrap();
    let created = of_copy()
        .args(["create", "--bundle"])
        .arg(case.path(""))
        .arg(case.id())
        .stdout(out)
        .status();
    assert!(created.unwrap().success());
    assert!(
        of_copy()
            .args(["start", case.id()])
            .status()
            .unwrap()
            .success()
    );
    wait_until("the captor", TIMEOUT, || case.read("out").contains("up"));
    // It waits to open the pipe, being executed, until the captor has a descriptor of it.
    let inside = ["/proc/self/exe", "--log", "/fifo", "state", "nobody"];
    let ended = of_copy()
        .args(["exec", case.id()])
        .args(inside)
        .output()
        .unwrap();
    assert!(!ended.status.success());
    wait_until("the attempt", TIMEOUT, || {
        case.read("out").contains("outcome")
    });
    assert!(
        case.read("out").contains("outcome refused"),
        "{}",
        case.read("out")
    );
    case.must(&["delete", "--force", case.id()]);
    assert_eq!(fs::read(&program).unwrap(), before);
    let nobody_executes_it = || {
        let mut options = fs::OpenOptions::new();
        options
            .append(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(&program)
            .is_ok()
    };
    wait_until("its end", TIMEOUT, nobody_executes_it);
    fs::read_to_string(case.path("trace")).unwrap_or_default()
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// CVE-2024-21626. A naive runtime has a descriptor of a directory of the host's open (`/sys/fs/cgroup` it was) and makes it
/// the working directory of the container's program, which then climbs up from it.
#[test]
fn no_working_directory_leads_out() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat ../../../../../../../../etc/hostname ./kept; echo reached");
    let outside = Outside::of(&case);
    let run = |case: &Case| {
        case.write();
        // A careless caller leaves descriptors of the host's directories open.
        let script = format!(
            "exec 7<{} 8</ 9</sys/fs/cgroup; exec {} --root {} run --bundle {} {}",
            outside.0.display(),
            case.program().get_program().to_str().unwrap(),
            case.path("state").display(),
            case.path("").display(),
            case.id()
        );
        Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    for number in 3..16 {
        for tail in ["", "/..", "/../../.."] {
            case.config["process"]["cwd"] = format!("/proc/self/fd/{number}{tail}").into();
            let output = run(&case);
            assert!(!output.status.success(), "{number}: {output:?}");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, "", "{number}");
        }
    }
    outside.assert_untouched();
}

/// The same by `exec`.
#[test]
fn no_working_directory_of_an_exec_leads_out() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; exec sleep 1000");
    case.start();
    for number in 3..16 {
        let cwd = format!("/proc/self/fd/{number}");
        case.must_fail(&["exec", "--cwd", &cwd, case.id(), "ls"]);
    }
}

/// A naive runtime passes on what its caller, or it itself, had open: one directory of the host's among them is the host.
#[test]
fn no_host_descriptor_is_inherited() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new(
        "for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do readlink /proc/self/fd/$fd; done; echo end",
    );
    case.write();
    let script = format!(
        "exec 5</ 7</etc 9</proc; exec {} --root {} run --bundle {} {} </dev/null",
        case.program().get_program().to_str().unwrap(),
        case.path("state").display(),
        case.path("").display(),
        case.id()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.last(), Some(&"end"), "{said}");
    let innocent = |line: &&str| line.starts_with("pipe:") || *line == "/dev/null";
    assert!(lines[..lines.len() - 1].iter().all(innocent), "{said}");
}
