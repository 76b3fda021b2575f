use tucano_api::settings::parse;

use super::*;

fn monitor(more: &str) -> NodeMonitor {
    let text = format!("controller = \"http://a:1\"\ntoken = \"s\"\ndata_dir = \"/tmp\"\n{more}");
    NodeMonitor::new(&parse("agent.toml", &text).unwrap())
}

#[test]
fn metrics_of_this_machine_are_plausible() {
    let (metrics, _) = monitor("memory_reserved = \"1MiB\"").sample();
    assert!(metrics.cpus > 0 && metrics.memory_total > Bytes(0) && metrics.disk_total > Bytes(0));
    assert!(metrics.memory_available <= metrics.memory_total);
    assert_eq!(
        metrics.memory_reservable.0,
        metrics.memory_total.0 - (1 << 20)
    );
}

#[test]
fn reservable_memory_can_be_configured() {
    let (metrics, _) = monitor("memory_reservable = \"64MiB\"").sample();
    assert_eq!(metrics.memory_reservable, Bytes::mib(64));
    let (metrics, _) = monitor("memory_reserved = \"1024TiB\"").sample();
    assert_eq!(metrics.memory_reservable, Bytes(0));
}

#[test]
fn cpu_usage_is_computed_since_the_last_sample() {
    let earlier = CpuTicks {
        used: 100,
        all: 1000,
    };
    assert_eq!(
        CpuTicks {
            used: 150,
            all: 1200
        }
        .share_since(earlier),
        0.25
    );
    assert_eq!(earlier.share_since(earlier), 0.0);
    assert_eq!(
        CpuTicks { used: 90, all: 900 }.share_since(earlier),
        0.0,
        "ticks may decrease"
    );
}

#[test]
fn a_missing_data_directory_is_noted() {
    let mut monitor = monitor("");
    monitor.data_dir = "/no/such/directory".into();
    let (_, notes) = monitor.sample();
    assert!(
        notes.iter().any(|note| note.contains("/no/such/directory")),
        "{notes:?}"
    );
}
