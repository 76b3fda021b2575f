use super::*;

fn cgroup_of(files: &[(&str, &str)], controllers: &[&str]) -> (tempfile::TempDir, Stats) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let directories = controllers
        .iter()
        .map(|name| ((*name).to_owned(), directory.path().to_owned()))
        .collect();
    let stats = read(&Cgroup { directories }).unwrap();
    (directory, stats)
}

#[test]
fn v2_is_read() {
    let files = [
        (
            "cpu.stat",
            "usage_usec 7\nuser_usec 5\nnr_throttled 2\nthrottled_usec 90\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.max", "max\n"),
        ("memory.events", "oom 4\noom_kill 3\noom_group_kill 9\n"),
        ("pids.current", "2\n"),
        ("pids.max", "64\n"),
        ("pids.events", "max 5\n"),
        (
            "io.stat",
            "8:0 rbytes=10 wbytes=1 rios=2\n8:16 rbytes=5 wbytes=2\n",
        ),
    ];
    let (_directory, stats) = cgroup_of(&files, &[""]);
    let expected = Stats {
        cpu_usage_us: 7,
        throttled_periods: 2,
        throttled_us: 90,
        memory_current: 4096,
        memory_reclaimable: 0,
        memory_peak: 8192,
        memory_limit: 0,
        oom_kills: 3,
        pids_current: 2,
        pids_limit: 64,
        pids_refused: 5,
        io_read_bytes: 15,
        io_write_bytes: 3,
    };
    assert_eq!(stats, expected);
}

#[test]
fn v1_is_read() {
    let files = [
        ("cpuacct.usage", "7000\n"),
        (
            "cpu.stat",
            "nr_periods 9\nnr_throttled 2\nthrottled_time 90000\n",
        ),
        ("memory.usage_in_bytes", "4096\n"),
        ("memory.max_usage_in_bytes", "8192\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        (
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        ),
        ("pids.current", "2\n"),
        ("pids.max", "max\n"),
        ("pids.events", "max 5\n"),
        (
            "blkio.throttle.io_service_bytes",
            "8:0 Read 10\n8:0 Write 1\n8:16 Read 5\nTotal 16\n",
        ),
    ];
    let all = ["blkio", "memory", "cpu", "cpuacct", "pids", "freezer"];
    let (_directory, stats) = cgroup_of(&files, &all);
    let expected = Stats {
        cpu_usage_us: 7,
        throttled_periods: 2,
        throttled_us: 90,
        memory_current: 4096,
        memory_reclaimable: 0,
        memory_peak: 8192,
        memory_limit: 0,
        oom_kills: 3,
        pids_current: 2,
        pids_limit: 0,
        pids_refused: 5,
        io_read_bytes: 15,
        io_write_bytes: 1,
    };
    assert_eq!(stats, expected);
}

#[test]
fn a_cgroup_that_is_gone_is_an_error() {
    let gone = Cgroup {
        directories: vec![(String::new(), "/nowhere".into())],
    };
    assert!(matches!(read(&gone), Err(Error::Read { .. })));
}
