//! Filters, and what the kernel makes of them.

use seccompiler::sock_filter;

use super::*;

fn compiled(text: &str) -> Result<Filters, Error> {
    Filters::compile(&serde_json::from_str(text).unwrap())
}

#[test]
fn unconditional_rules_are_one_filter() {
    let filters = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
    )
    .unwrap();
    assert_eq!(filters.programs.len(), 1);
}

#[test]
fn a_deny_list_needs_no_default_filter() {
    let filters = compiled(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    assert_eq!(filters.programs.len(), 1);
    let nothing = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    assert!(nothing.programs.is_empty());
}

#[test]
fn no_condition_wins_over_conditions() {
    let call = |text: &str| -> LinuxSyscall { serde_json::from_str(text).unwrap() };
    let conditional = call(
        r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"},
            {"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}"#,
    );
    let plain = call(r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW"}"#);
    let clone = number("clone").unwrap();
    let mut rules = Rules::new();
    add(&mut rules, &conditional).unwrap();
    assert_eq!(rules[&clone].len(), 2);
    add(&mut rules, &plain).unwrap();
    add(&mut rules, &conditional).unwrap();
    assert!(rules[&clone].is_empty());
}

#[test]
fn notifications_get_a_filter_of_their_own() {
    let filters = compiled(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/run/agent","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
    )
    .unwrap();
    assert_eq!(filters.programs.len(), 1);
    let program = filters.notifying.unwrap();
    let verdicts = |wanted: u32| program.iter().filter(|one| one.k == wanted).count();
    assert_eq!(verdicts(libc::SECCOMP_RET_USER_NOTIF), 1);
    assert_eq!(verdicts(u32::from(NOTIFY_PLACEHOLDER)), 0);
}

#[test]
fn notification_that_cannot_work_is_refused() {
    for (section, why) in [
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#,
            "default",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "listenerPath",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[
                {"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "write",
        ),
    ] {
        let error = compiled(section).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Interprets a filter (`struct seccomp_data`: number, architecture, instruction pointer, arguments).
fn run(program: &[sock_filter], data: &[u32; 16]) -> u32 {
    let (mut at, mut word) = (0, 0);
    loop {
        let one = &program[at];
        let jump = |holds| usize::from(if holds { one.jt } else { one.jf });
        at += 1;
        match one.code {
            0x20 => word = data[one.k as usize / 4],
            0x54 => word &= one.k,
            0x05 => at += one.k as usize,
            0x15 => at += jump(word == one.k),
            0x25 => at += jump(word > one.k),
            0x35 => at += jump(word >= one.k),
            0x06 => return one.k,
            code => panic!("{code:#x}"),
        }
    }
}

/// The verdict of all filters: the strictest, of those the newest.
fn evaluate(filters: &Filters, number: u32, arguments: [u64; 6]) -> u32 {
    const X86_64: u32 = 0xc000_003e;
    const AARCH64: u32 = 0xc000_00b7;
    let mut data = [0; 16];
    data[0] = number;
    data[1] = if cfg!(target_arch = "x86_64") {
        X86_64
    } else {
        AARCH64
    };
    for (index, argument) in arguments.iter().enumerate() {
        data[4 + 2 * index] = *argument as u32;
        data[5 + 2 * index] = (argument >> 32) as u32;
    }
    let verdicts = filters
        .programs
        .iter()
        .rev()
        .map(|program| run(program, &data));
    verdicts.fold(ALLOW, |all, one| {
        if strictness(one) < strictness(all) {
            one
        } else {
            all
        }
    })
}

/// Reference implementation of a section.
fn expected(section: &LinuxSeccomp, number: u32, arguments: [u64; 6]) -> u32 {
    let code = |action, errno| match verdict(action, errno) {
        Verdict::Static(action) => u32::from(action),
        Verdict::Notify => libc::SECCOMP_RET_USER_NOTIF,
    };
    let default = code(section.default_action(), section.default_errno_ret());
    let holds = |arg: &LinuxSeccompArg| {
        let (value, wanted) = (arguments[arg.index()], arg.value());
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => value != wanted,
            LinuxSeccompOperator::ScmpCmpLt => value < wanted,
            LinuxSeccompOperator::ScmpCmpLe => value <= wanted,
            LinuxSeccompOperator::ScmpCmpEq => value == wanted,
            LinuxSeccompOperator::ScmpCmpGe => value >= wanted,
            LinuxSeccompOperator::ScmpCmpGt => value > wanted,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                value & wanted == arg.value_two().unwrap_or_default() & wanted
            }
        }
    };
    let matching = section.syscalls().iter().flatten().filter(|call| {
        let names = call.names().iter().filter_map(|name| self::number(name));
        names.into_iter().any(|one| one == i64::from(number))
            && call.args().iter().flatten().all(holds)
    });
    let verdicts: Vec<_> = matching
        .map(|call| code(call.action(), call.errno_ret()))
        .collect();
    let strictest = verdicts.iter().copied().reduce(|all, one| {
        if strictness(one) <= strictness(all) {
            one
        } else {
            all
        }
    });
    let named = |call: &LinuxSyscall| call.names().clone();
    let names = section.syscalls().iter().flatten().flat_map(named);
    let highest = names.filter_map(|name| self::number(&name)).max();
    let permissive = [ALLOW, libc::SECCOMP_RET_LOG].contains(&default);
    let is_newer = !permissive && highest.is_some_and(|highest| i64::from(number) > highest);
    let unlisted = if is_newer {
        libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32
    } else {
        default
    };
    strictest.unwrap_or(unlisted)
}

fn assert_matches_section(section: &LinuxSeccomp, values: &[u64]) {
    let filters = Filters::compile(section).unwrap();
    for number in 0..600 {
        for first in values {
            for second in values {
                let arguments = [*first, *second, 0, 0, 0, 0];
                assert_eq!(
                    evaluate(&filters, number, arguments),
                    expected(section, number, arguments),
                    "{number}({first:#x}, {second:#x})"
                );
            }
        }
    }
}

#[test]
fn the_sandbox_filter_matches_its_section() {
    let values = [
        0,
        1,
        2,
        8,
        10,
        16,
        17,
        38,
        0x5412,
        0x541c,
        0x2_0008,
        0x1000_0000,
        0xffff_ffff,
    ];
    for capabilities in [vec![], vec!["SYS_CHROOT".to_owned()]] {
        assert_matches_section(&crate::profile::seccomp(&capabilities).unwrap(), &values);
    }
}

#[test]
fn every_operator_and_action_matches_the_section() {
    let text = r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[
        {"names":["read","write","reboot"],"action":"SCMP_ACT_ALLOW"},
        {"names":["reboot","mount"],"action":"SCMP_ACT_KILL_PROCESS"},
        {"names":["mount","clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
        {"names":["open"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":5,"op":"SCMP_CMP_GT"}]},
        {"names":["close"],"action":"SCMP_ACT_TRAP","args":[{"index":1,"value":5,"op":"SCMP_CMP_LE"}]},
        {"names":["stat"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":5,"op":"SCMP_CMP_NE"},
            {"index":1,"value":4294967296,"op":"SCMP_CMP_GE"}]},
        {"names":["poll"],"action":"SCMP_ACT_TRACE","args":[{"index":0,"value":3,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]},
        {"names":["lseek"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":5,"op":"SCMP_CMP_LT"}]},
        {"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":7}]}"#;
    let section = serde_json::from_str(text).unwrap();
    assert_matches_section(&section, &[0, 1, 4, 5, 6, 1 << 32, u64::MAX]);
}

#[test]
fn a_long_section_becomes_several_filters() {
    let names: Vec<_> = (0..100)
        .filter_map(|number| syscalls::Sysno::new(number).map(|call| call.name()))
        .filter(|name| !["read", "write"].contains(name))
        .collect();
    let rule = |action: &str, value: u64| {
        let arg = serde_json::json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
        serde_json::json!({"names": names, "action": action, "args": [arg]})
    };
    let section = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        rule("SCMP_ACT_ALLOW", 1), rule("SCMP_ACT_KILL_PROCESS", 2), rule("SCMP_ACT_TRAP", 2),
        rule("SCMP_ACT_TRAP", 3)]});
    let section: LinuxSeccomp = serde_json::from_value(section).unwrap();
    let filters = Filters::compile(&section).unwrap();
    assert_eq!(filters.programs.len(), 4);
    assert_matches_section(&section, &[0, 1, 2, 3]);
}

#[test]
fn the_sandbox_filter_is_one_program() {
    let filters = Filters::compile(&crate::profile::seccomp(&[]).unwrap()).unwrap();
    assert_eq!(filters.programs.len(), 1);
    assert!(
        filters.programs[0].len() < 300,
        "{}",
        filters.programs[0].len()
    );
}

#[test]
fn system_calls_newer_than_a_list_do_not_exist() {
    let verdict_of = |text: &str, number| evaluate(&compiled(text).unwrap(), number, [0; 6]);
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let read = number("read").unwrap() as u32;
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let text = format!(
            r#"{{"defaultAction":"{default}","syscalls":[
                {{"names":["read"],"action":"SCMP_ACT_ALLOW"}},
                {{"names":["openat2"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        );
        let highest = number("openat2").unwrap() as u32;
        assert_eq!(verdict_of(&text, read), ALLOW);
        assert_eq!(verdict_of(&text, highest), eperm);
        for newer in [highest + 1, 467, 468, 600, 100_000] {
            assert_eq!(verdict_of(&text, newer), enosys, "{default} {newer}");
        }
    }
    let permissive = r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ERRNO"}]}"#;
    assert_eq!(verdict_of(permissive, 600), libc::SECCOMP_RET_LOG);
}

#[test]
fn waiting_for_the_start_needs_its_system_calls() {
    let early = |listed: &str, default: &str| {
        let text = format!(
            r#"{{"defaultAction":"{default}","listenerPath":"/x","syscalls":[
                {{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}},
                {{"names":[{listed}],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        compiled(&text).unwrap().notify_and_permit_waiting()
    };
    let all: Vec<_> = WAITING_CALLS
        .iter()
        .map(|name| format!("{name:?}"))
        .collect();
    assert!(early(&all.join(","), "SCMP_ACT_ERRNO"));
    assert!(!early(&all[1..].join(","), "SCMP_ACT_ERRNO"));
    assert!(early("", "SCMP_ACT_ALLOW"));
}
