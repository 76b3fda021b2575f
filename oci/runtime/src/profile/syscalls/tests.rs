use crate::container::seccomp::Filters;

#[test]
fn the_profile_compiles() {
    Filters::compile(&super::super::seccomp(&[]).unwrap()).unwrap();
}

#[test]
fn dangerous_calls_are_not_listed() {
    let text = super::section(&[]).to_string();
    for name in [
        "mount",
        "unshare",
        "setns",
        "ptrace",
        "bpf",
        "keyctl",
        "init_module",
        "kexec_load",
        "perf_event_open",
        "userfaultfd",
        "open_by_handle_at",
        "process_vm_readv",
        "pidfd_getfd",
        "reboot",
        "chroot",
        "pivot_root",
        "swapon",
        "iopl",
        "settimeofday",
        "quotactl",
        "fsopen",
    ] {
        assert!(!text.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn chroot_needs_its_capability() {
    let has = |capabilities: &[&str]| {
        let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
        super::section(&capabilities)
            .to_string()
            .contains("\"chroot\"")
    };
    assert!(has(&["CHOWN", "SYS_CHROOT"]));
    assert!(!has(&["CHOWN", "SETUID"]));
}
