use super::*;
use crate::cgroup::devices::Access;

/// A device access.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: u32,
    access: u32,
    major: u32,
    minor: u32,
}

/// Interprets the instructions that are used here.
fn run(program: &[Instruction], request: Request) -> u32 {
    let context = [
        request.access << 16 | request.kind,
        request.major,
        request.minor,
    ];
    let mut registers = [0u64; 6];
    let mut next = 0usize;
    for _ in 0..program.len() {
        let Instruction {
            code,
            registers: both,
            offset,
            immediate,
        } = program[next];
        let (target, source) = ((both & 15) as usize, both >> 4);
        let extended = i64::from(immediate).cast_unsigned();
        let value = registers[target];
        let jumps = match code {
            EXIT => return registers[ANSWER as usize] as u32,
            LOAD_WORD => {
                assert_eq!(source, CONTEXT);
                registers[target] = context[offset as usize / 4].into();
                false
            }
            MOVE => {
                registers[target] = immediate.cast_unsigned().into();
                false
            }
            AND => {
                registers[target] = u64::from(value as u32 & immediate.cast_unsigned());
                false
            }
            SHIFT_RIGHT => {
                registers[target] = u64::from(value as u32 >> immediate);
                false
            }
            JUMP => true,
            JUMP_IF_NOT_EQUAL => value != extended,
            JUMP_IF_ANY_BIT => value & extended != 0,
            other => panic!("the code {other:#x}"),
        };
        next += 1;
        if jumps {
            next = next.checked_add_signed(offset.into()).unwrap();
        }
    }
    panic!("it does not end: {program:?}");
}

/// Reference implementation: the last matching rule decides, for each access type.
fn meaning(rules: &[Rule], request: Request) -> bool {
    let speaks = |rule: &Rule| {
        rule.kind.is_none_or(|kind| kind as u32 == request.kind)
            && rule.major.is_none_or(|major| major == request.major)
            && rule.minor.is_none_or(|minor| minor == request.minor)
    };
    [1, 2, 4]
        .into_iter()
        .filter(|bit| request.access & bit != 0)
        .all(|bit| {
            let about = |rule: &&Rule| speaks(rule) && rule.access.0 & bit != 0;
            rules.iter().rfind(about).is_some_and(|rule| rule.allow)
        })
}

fn every_rule() -> Vec<Rule> {
    let mut all = Vec::new();
    for allow in [true, false] {
        for kind in [None, Some(Kind::Block), Some(Kind::Character)] {
            for (major, minor) in [
                (None, None),
                (Some(1), None),
                (Some(1), Some(3)),
                (None, Some(3)),
            ] {
                for access in [1, 2, 4, 6, 7] {
                    let access = Access(access);
                    all.push(Rule {
                        allow,
                        kind,
                        major,
                        minor,
                        access,
                    });
                }
            }
        }
    }
    all
}

fn every_request() -> Vec<Request> {
    let mut all = Vec::new();
    for kind in [1, 2] {
        for access in 1..=7 {
            for (major, minor) in [(1, 3), (1, 4), (8, 3), (0xf_ffff, 0xf_ffff)] {
                all.push(Request {
                    kind,
                    access,
                    major,
                    minor,
                });
            }
        }
    }
    all
}

#[test]
fn the_program_matches_the_reference() {
    let (rules, requests) = (every_rule(), every_request());
    for first in &rules {
        for second in &rules {
            let both = [*first, *second];
            let program = program(&both);
            for request in &requests {
                let expected = u32::from(meaning(&both, *request));
                assert_eq!(run(&program, *request), expected, "{both:?} {request:?}");
            }
        }
    }
}

#[test]
fn later_rules_override_earlier_ones() {
    let rule = |allow, minor, access| Rule {
        allow,
        kind: Some(Kind::Character),
        major: Some(1),
        minor,
        access: Access(access),
    };
    let rules = [
        rule(false, None, 7),
        rule(true, None, 6),
        rule(false, Some(3), 4),
    ];
    let program = program(&rules);
    let answer = |access, minor| {
        run(
            &program,
            Request {
                kind: 2,
                access,
                major: 1,
                minor,
            },
        )
    };
    assert_eq!((answer(6, 4), answer(2, 3)), (1, 1));
    assert_eq!((answer(6, 3), answer(1, 4)), (0, 0));
}

#[test]
fn without_rules_nothing_is_allowed() {
    let program = program(&[]);
    assert!(
        every_request()
            .iter()
            .all(|request| run(&program, *request) == 0)
    );
}
