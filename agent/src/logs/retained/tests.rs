use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn id(text: &str) -> ProcessId {
    text.parse().unwrap()
}

fn keep(retained: &Retained, name: &str, output: &str) {
    let home = tempfile::tempdir().unwrap();
    let names = ["stdout.log", "stdout.log.1", "stderr.log", "output.idx"];
    for file in names.into_iter().chain(["launch.json"]) {
        fs::write(home.path().join(file), output).unwrap();
    }
    retained.keep(&id(name), home.path()).unwrap();
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        1,
        "only output is moved"
    );
    let directory = fs::File::open(retained.directory(&id(name))).unwrap();
    assert_eq!(
        fs::read_dir(retained.directory(&id(name))).unwrap().count(),
        names.len()
    );
    drop(directory);
}

fn removed(retained: &Retained, name: &str, ago: Duration) {
    let directory = fs::File::open(retained.directory(&id(name))).unwrap();
    directory.set_modified(SystemTime::now() - ago).unwrap();
}

#[test]
fn output_of_removed_processes_is_kept_for_its_time() {
    let root = tempfile::tempdir().unwrap();
    let retained = Retained::new(root.path().join("logs"), HOUR, 1 << 20);
    retained.prune(SystemTime::now()).unwrap();
    keep(&retained, "a-1", "x");
    keep(&retained, "a-2", "x");
    removed(&retained, "a-1", HOUR * 2);
    retained.prune(SystemTime::now()).unwrap();
    assert!(!retained.directory(&id("a-1")).exists());
    assert!(retained.directory(&id("a-2")).exists());
}

#[test]
fn the_oldest_output_is_removed_beyond_the_limit_of_bytes() {
    let root = tempfile::tempdir().unwrap();
    let retained = Retained::new(root.path().join("logs"), HOUR, 900);
    for (number, name) in ["a-1", "a-2", "a-3"].into_iter().enumerate() {
        keep(&retained, name, &"x".repeat(100));
        removed(
            &retained,
            name,
            HOUR / 2 - Duration::from_secs(number as u64),
        );
    }
    retained.prune(SystemTime::now()).unwrap();
    let kept = ["a-1", "a-2", "a-3"].map(|name| retained.directory(&id(name)).exists());
    assert_eq!(kept, [false, true, true]);
}

#[test]
fn the_kept_output_of_a_service_is_found() {
    let root = tempfile::tempdir().unwrap();
    let retained = Retained::new(root.path().join("logs"), HOUR, 1 << 20);
    let name = |text: &str| text.parse().unwrap();
    assert_eq!(retained.of_service(&name("a")).unwrap(), []);
    for name in ["a-10", "a-9", "a-1-2", "b-3"] {
        keep(&retained, name, "x");
    }
    fs::create_dir(retained.root().join("lost+found")).unwrap();
    let found = |service| {
        let kept = retained.of_service(&name(service)).unwrap().into_iter();
        kept.map(|output| output.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found("a"), ["a-9", "a-10"]);
    assert_eq!(found("a-1"), ["a-1-2"]);
    assert_eq!(found("c"), [""; 0]);
}

#[test]
fn nothing_is_kept_without_time_or_space() {
    let root = tempfile::tempdir().unwrap();
    for (age, bytes) in [(Duration::ZERO, 700), (HOUR, 0)] {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("stdout.log"), "x").unwrap();
        let retained = Retained::new(root.path().join("logs"), age, bytes);
        retained.keep(&id("a-1"), home.path()).unwrap();
        assert!(!retained.directory(&id("a-1")).exists());
    }
}
