use super::*;
use oci_spec::runtime::LinuxNamespaceType;

fn sandbox() -> Sandbox {
    Sandbox {
        args: vec!["/bin/x".into()],
        memory_bytes: 1 << 20,
        cpus: Some(0.5),
        pids: 9,
        cgroup: "tucano/x".into(),
        ..Sandbox::default()
    }
}

#[test]
fn the_default_sandbox_grants_no_capability() {
    let spec = sandbox().spec().unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.no_new_privileges(), Some(true));
    let capabilities = process.capabilities().as_ref().unwrap();
    let sets = [
        capabilities.bounding(),
        capabilities.effective(),
        capabilities.permitted(),
        capabilities.inheritable(),
        capabilities.ambient(),
    ];
    assert!(sets.iter().all(|set| set.iter().flatten().next().is_none()));
    assert_eq!(process.cwd(), &PathBuf::from("/"));
    assert_eq!(process.oom_score_adj(), Some(OOM_SCORE));
}

#[test]
fn capabilities_are_neither_inheritable_nor_ambient() {
    let asked = Sandbox {
        capabilities: vec!["CHOWN".into(), "SYS_CHROOT".into()],
        ..sandbox()
    };
    let spec = asked.spec().unwrap();
    let process = spec.process().as_ref().unwrap();
    let capabilities = process.capabilities().as_ref().unwrap();
    for set in [
        capabilities.bounding(),
        capabilities.effective(),
        capabilities.permitted(),
    ] {
        assert_eq!(set.iter().flatten().count(), 2);
    }
    for set in [capabilities.inheritable(), capabilities.ambient()] {
        assert_eq!(set.iter().flatten().count(), 0);
    }
}

#[test]
fn a_read_only_root_has_a_place_for_temporary_files() {
    let mounted = |sandbox: &Sandbox, place: &str| {
        let spec = sandbox.spec().unwrap();
        let mounts = spec.mounts().clone().unwrap();
        let found = mounts
            .into_iter()
            .find(|mount| mount.destination() == Path::new(place));
        found.map(|mount| mount.options().clone().unwrap().join(","))
    };
    assert_eq!(mounted(&sandbox(), "/tmp"), None);
    assert!(
        mounted(&sandbox(), "/dev/shm")
            .unwrap()
            .contains("size=67108864")
    );
    let strict = Sandbox {
        read_only: true,
        tmp_bytes: Some(4096),
        shared_memory_bytes: Some(8192),
        ..sandbox()
    };
    assert!(mounted(&strict, "/tmp").unwrap().contains("size=4096"));
    assert!(mounted(&strict, "/dev/shm").unwrap().contains("size=8192"));
    assert_eq!(
        strict.spec().unwrap().root().as_ref().unwrap().readonly(),
        Some(true)
    );
}

#[test]
fn thermal_events_of_each_cpu_are_masked() {
    let cpus = tempfile::tempdir().unwrap();
    for directory in ["cpu0/thermal_throttle", "cpu1", "power"] {
        fs::create_dir_all(cpus.path().join(directory)).unwrap();
    }
    let hidden = masked(cpus.path());
    let thermal = cpus.path().join("cpu0/thermal_throttle");
    assert_eq!(hidden[MASKED.len()..], [thermal.display().to_string()]);
    assert!(hidden.contains(&"/proc/kcore".to_owned()));
}

#[test]
fn limits_become_resources() {
    let spec = sandbox().spec().unwrap();
    let linux = spec.linux().as_ref().unwrap();
    let resources = linux.resources().as_ref().unwrap();
    let memory = resources.memory().as_ref().unwrap();
    assert_eq!(
        (memory.limit(), memory.swap()),
        (Some(1 << 20), Some(1 << 20))
    );
    let cpu = resources.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
    assert_eq!(resources.pids().as_ref().unwrap().limit(), 9);
}

#[test]
fn a_tiny_cpu_share_is_rounded_up() {
    let tiny = resources(1 << 20, Some(0.000_1), 9);
    assert_eq!(tiny["cpu"]["quota"], CPU_QUOTA_MIN_US);
}

#[test]
fn the_user_namespace_is_mapped() {
    let kinds = |spec: &Spec| -> Vec<LinuxNamespaceType> {
        let linux = spec.linux().as_ref().unwrap();
        let all = linux.namespaces().as_ref().unwrap();
        all.iter().map(|namespace| namespace.typ()).collect()
    };
    assert!(!kinds(&sandbox().spec().unwrap()).contains(&LinuxNamespaceType::User));
    let mapped = Sandbox {
        user_namespace: Some(200_000),
        ..sandbox()
    };
    let spec = mapped.spec().unwrap();
    assert!(kinds(&spec).contains(&LinuxNamespaceType::User));
    let mappings = spec
        .linux()
        .as_ref()
        .unwrap()
        .uid_mappings()
        .clone()
        .unwrap();
    assert_eq!(
        (mappings[0].host_id(), mappings[0].size()),
        (200_000, 65_536)
    );
}
