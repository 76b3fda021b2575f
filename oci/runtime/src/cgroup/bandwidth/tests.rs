use super::*;
use std::cell::RefCell;

fn cpu(text: &str) -> LinuxCpu {
    serde_json::from_str(text).unwrap()
}

fn joined(writes: &[(&str, String)]) -> Vec<String> {
    let join = |(name, value): &(&str, String)| format!("{name}={value}");
    writes.iter().map(join).collect()
}

#[test]
fn v2_keeps_the_other_of_quota_and_period() {
    let of = |text: &str| joined(&unified(&cpu(text), "5000 20000\n"));
    assert_eq!(of(r#"{"quota":3000}"#), ["cpu.max=3000 20000"]);
    assert_eq!(of(r#"{"period":10000}"#), ["cpu.max=5000 10000"]);
    assert_eq!(
        of(r#"{"quota":-1,"burst":0}"#),
        ["cpu.max=max 20000", "cpu.max.burst=0"]
    );
    assert!(of(r#"{"quota":0,"period":0}"#).is_empty());
}

#[test]
fn v1_has_a_file_for_each() {
    let of = |text: &str| joined(&per_controller(&cpu(text)));
    let all = of(r#"{"quota":3000,"period":10000,"burst":0}"#);
    let expected = [
        "cpu.cfs_period_us=10000",
        "cpu.cfs_quota_us=3000",
        "cpu.cfs_burst_us=0",
    ];
    assert_eq!(all, expected);
}

/// A parent with half a CPU: 20 ms of 100 ms become 3 ms of 10 ms, and the period alone would be too much.
#[test]
fn a_write_that_is_refused_is_tried_again_after_the_others() {
    let state = RefCell::new([20_000, 100_000]);
    let write = |file: &Path, value: &str| {
        let mut wanted = *state.borrow();
        let index = usize::from(file.ends_with("cpu.cfs_period_us"));
        wanted[index] = value.parse().unwrap();
        if wanted[0] * 2 > wanted[1] {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        *state.borrow_mut() = wanted;
        Ok(())
    };
    let writes = |text: &str| -> Vec<Write> {
        let all = per_controller(&cpu(text)).into_iter();
        all.map(|(name, value)| (name.into(), value)).collect()
    };
    write_in_any_order(writes(r#"{"quota":3000,"period":10000}"#), &write).unwrap();
    assert_eq!(*state.borrow(), [3000, 10_000]);
    write_in_any_order(writes(r#"{"quota":40000,"period":100000}"#), &write).unwrap();
    assert_eq!(*state.borrow(), [40_000, 100_000]);
    let error = write_in_any_order(writes(r#"{"quota":60000}"#), &write).unwrap_err();
    assert_eq!(error.1, "60000");
}
