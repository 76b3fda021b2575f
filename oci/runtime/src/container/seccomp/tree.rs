//! A search tree in BPF for verdicts that depend on the number alone. When a filter is installed, the kernel runs it
//! for every number to find those that are always allowed; a list of comparisons would dominate the start of a
//! container.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use super::ALLOW;

/// Classic BPF (`<linux/bpf_common.h>`): load a word, jump, jump if not less, return.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offset of the number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// Placeholder verdict for numbers that other programs decide; the kernel has no such verdict.
pub(super) const FALL_THROUGH: u32 = 1;

/// Verdicts of numbers that are not listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlisted {
    pub(super) verdict: u32,
    /// The first number that is newer than the list, and the verdict from there on.
    pub(super) newer: Option<(u32, u32)>,
}

/// Looks up the number and returns its verdict. Numbers with [`FALL_THROUGH`] pass through the other programs; the
/// first that does not allow the call decides.
pub(super) fn search(
    unlisted: Unlisted,
    verdicts: &BTreeMap<u32, u32>,
    others: &[Vec<sock_filter>],
) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD, NUMBER)];
    program.extend(branch(&runs(unlisted, verdicts)));
    redirect_to_end(&mut program, FALL_THROUGH);
    for (index, other) in others.iter().enumerate() {
        let mut other = other.clone();
        if index + 1 < others.len() {
            redirect_to_end(&mut other, ALLOW);
        }
        program.extend(other);
    }
    program
}

/// Replaces returns of this verdict by jumps to the end of the program.
fn redirect_to_end(program: &mut [sock_filter], verdict: u32) {
    let end = program.len();
    let is_answer = |one: &sock_filter| one.code == RETURN && one.k == verdict;
    for (at, one) in program.iter_mut().enumerate() {
        if is_answer(one) {
            *one = instruction(JUMP, distance(at, end));
        }
    }
}

/// Applies a program to these numbers alone; returns `otherwise` for others.
pub(super) fn only(numbers: &[u32], otherwise: u32, program: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut all = vec![instruction(LOAD, NUMBER)];
    for number in numbers {
        // A match skips the jump to the next comparison.
        all.push(sock_filter {
            jf: 1,
            ..instruction(IF_EQUAL, *number)
        });
        all.push(instruction(JUMP, 0));
    }
    let begin = all.len() + 1;
    for (at, one) in all
        .iter_mut()
        .enumerate()
        .filter(|(_, one)| one.code == JUMP)
    {
        one.k = distance(at, begin);
    }
    all.push(instruction(RETURN, otherwise));
    all.extend(program);
    all
}

/// First number and verdict of each run of neighbours with the same verdict.
fn runs(unlisted: Unlisted, verdicts: &BTreeMap<u32, u32>) -> Vec<(u32, u32)> {
    let default = unlisted.verdict;
    let mut runs = vec![(0, default)];
    let mut begin = |number, verdict| match runs.last_mut() {
        Some(last) if last.1 == verdict => {}
        // The last run is empty.
        Some(last) if last.0 == number => last.1 = verdict,
        _ => runs.push((number, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            begin(next, default);
        }
        begin(*number, *verdict);
        next = number + 1;
    }
    begin(next, default);
    if let Some((first, verdict)) = unlisted.newer {
        begin(first.max(next), verdict);
    }
    runs
}

fn branch(runs: &[(u32, u32)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = runs {
        return vec![instruction(RETURN, *verdict)];
    }
    let (below, above) = runs.split_at(runs.len() / 2);
    fork(above[0].0, branch(below), branch(above))
}

/// Branches to numbers below and from `number` on.
fn fork(number: u32, below: Vec<sock_filter>, above: Vec<sock_filter>) -> Vec<sock_filter> {
    let compare = instruction(IF_NOT_LESS, number);
    let mut program = match u8::try_from(below.len()) {
        Ok(jt) => vec![sock_filter { jt, ..compare }],
        Err(_) => vec![
            sock_filter { jf: 1, ..compare },
            instruction(JUMP, distance(0, below.len() + 1)),
        ],
    };
    program.extend(below);
    program.extend(above);
    program
}

/// Jump offset. Programs are far shorter than u32.
fn distance(at: usize, to: usize) -> u32 {
    u32::try_from(to - at - 1).unwrap_or(u32::MAX)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u32 = 7;

    const UNLISTED: Unlisted = Unlisted {
        verdict: DEFAULT,
        newer: None,
    };

    /// Interprets a program for a number.
    fn run(program: &[sock_filter], number: u32) -> u32 {
        let mut at = 0;
        loop {
            let one = &program[at];
            let jump = |holds| usize::from(if holds { one.jt } else { one.jf });
            at += 1 + match one.code {
                LOAD => 0,
                JUMP => one.k as usize,
                IF_EQUAL => jump(number == one.k),
                IF_NOT_LESS => jump(number >= one.k),
                _ => return one.k,
            };
        }
    }

    fn check(verdicts: &BTreeMap<u32, u32>) {
        let program = search(UNLISTED, verdicts, &[]);
        for number in 0..1000 {
            let expected = verdicts.get(&number).copied().unwrap_or(DEFAULT);
            assert_eq!(run(&program, number), expected, "{number}");
        }
        assert_eq!(run(&program, u32::MAX), DEFAULT);
    }

    #[test]
    fn every_number_has_its_answer() {
        check(&BTreeMap::new());
        check(&[(0, 3)].into());
        check(&[(0, 3), (1, 3), (2, 2), (3, DEFAULT), (5, 3), (6, 3)].into());
    }

    #[test]
    fn numbers_newer_than_the_list_have_a_verdict_of_their_own() {
        let unlisted = Unlisted {
            newer: Some((10, 9)),
            ..UNLISTED
        };
        for last in [3, DEFAULT] {
            let program = search(unlisted, &[(1, 3), (9, last)].into(), &[]);
            let found = [0, 1, 8, 9, 10, 11, u32::MAX].map(|number| run(&program, number));
            assert_eq!(found, [DEFAULT, 3, DEFAULT, last, 9, 9, 9]);
        }
    }

    #[test]
    fn far_branches_are_reached_too() {
        check(&(0..800).map(|number| (number, 2 + number % 3)).collect());
    }

    #[test]
    fn neighbours_take_no_comparisons() {
        let verdicts = (10..300).map(|number| (number, 2)).collect();
        let program = search(UNLISTED, &verdicts, &[]);
        assert_eq!(program.len(), 1 + 2 + 3);
    }

    #[test]
    fn the_first_program_that_does_not_allow_decides() {
        let unless =
            |number: u32, verdict: u32| only(&[number], ALLOW, vec![instruction(RETURN, verdict)]);
        let others = [unless(4, 20), unless(5, 30), unless(4, 40)];
        let verdicts = (3..7).map(|number| (number, FALL_THROUGH)).collect();
        let program = search(UNLISTED, &verdicts, &others);
        let evaluate: Vec<_> = (2..8).map(|number| run(&program, number)).collect();
        assert_eq!(evaluate, [DEFAULT, ALLOW, 20, 30, ALLOW, DEFAULT]);
    }

    #[test]
    fn a_program_is_restricted_to_its_numbers() {
        let inner = vec![instruction(RETURN, 1)];
        let program = only(&[3, 9, 40], 0, inner);
        for number in 0..50 {
            let expected = u32::from([3, 9, 40].contains(&number));
            assert_eq!(run(&program, number), expected, "{number}");
        }
    }
}
